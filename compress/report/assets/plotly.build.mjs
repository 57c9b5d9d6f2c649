// Makes plotly.min.js, the part of plotly.js that the report draws with: scatter (in its core), bar and treemap.
// In an empty folder: npm install plotly.js@4.1.1 esbuild@0.28, then node plotly.build.mjs
import { build } from "esbuild";
import { readFile } from "node:fs/promises";

// Explanations of attributes serve Plotly's documentation alone; its own bundles leave them out as well.
const explanation = /\bdescription: (\[[^\]]*\]\.join\('[^']*'\)|'(?:[^'\\]|\\.)*')/g;
const withoutExplanations = {
  name: "without explanations",
  setup: ({ onLoad }) =>
    onLoad({ filter: /plotly\.js\/src\/.*\.js$/ }, async ({ path }) => ({
      contents: (await readFile(path, "utf8")).replace(explanation, "description: ''"),
    })),
};

await build({
  stdin: {
    contents: `
      const Plotly = require("plotly.js/lib/core");
      Plotly.register([require("plotly.js/lib/bar"), require("plotly.js/lib/treemap")]);
      module.exports = Plotly;`,
    resolveDir: ".",
  },
  bundle: true,
  minify: true,
  format: "iife",
  globalName: "Plotly",
  target: "es2020",
  define: { global: "window" },
  loader: { ".css": "empty" }, // of maps
  legalComments: "eof",
  banner: { js: "/* plotly.js v4.1.1: scatter, bar, treemap. Copyright 2012-2026, Plotly, Inc. MIT license. */" },
  plugins: [withoutExplanations],
  outfile: "plotly.min.js",
});
