"use strict";
(() => {
  const store = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 600px)");
  const variant = document.getElementById("variant");
  const config = {
    responsive: true,
    displaylogo: false,
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d", "zoomIn2d", "zoomOut2d", "toggleSpikelines"],
  };

  const hardware = () => document.querySelector("#hardware input:checked").value;

  function draw(place, figure) {
    place.hidden = !figure;
    if (!figure) return;
    const layout = structuredClone(figure.layout);
    layout.template = store.templates[dark.matches ? "dark" : "light"];
    layout.paper_bgcolor = "rgba(0,0,0,0)";
    layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: "#868e99", activecolor: "#2f81c7" };
    layout.dragmode = narrow.matches ? false : "zoom";
    layout.margin = { l: 16, r: 24, t: layout.showlegend === false ? 32 : 72, b: 16 };
    if (narrow.matches) {
      layout.font = { size: 11 };
      layout.margin = { l: 4, r: 12, t: layout.showlegend === false ? 8 : 64, b: 8 };
      if (layout.yaxis?.ticktext) {
        layout.yaxis.ticktext = layout.yaxis.ticktext.map((name) => (name.length > 15 ? "…" + name.slice(-14) : name));
      }
    }
    place.setAttribute("aria-label", figure.label);
    Plotly.react(place, structuredClone(figure.data), layout, { ...config, displayModeBar: narrow.matches ? false : "hover" });
  }

  function fill(figure) {
    // The stacked bars as a table: a row for each layer, a column for each component.
    const bars = figure.data.filter((trace) => trace.type === "bar" && trace.showlegend);
    const table = document.createElement("table");
    const add = (row, tag, text) => {
      row.insertAdjacentElement("beforeend", document.createElement(tag)).innerHTML = text;
    };
    const head = table.createTHead().insertRow();
    add(head, "th", `Layer, ${figure.layout.xaxis.title.text}`);
    bars.forEach((bar) => add(head, "th", bar.name));
    const body = table.createTBody();
    figure.layout.yaxis.ticktext.forEach((name, index) => {
      const row = body.insertRow();
      add(row, "th", name);
      bars.forEach((bar) => add(row, "td", Number(bar.x[index].toPrecision(3))));
    });
    document.getElementById("numbers").replaceChildren(table);
  }

  function drawLayers() {
    const figures = store.profiles[hardware()].variants[variant.value];
    document.getElementById("layers").classList.toggle("empty", !figures);
    ["energy", "dram", "bytes", "roofline"].forEach((id) => draw(document.getElementById(id), figures && figures[id]));
    if (!figures) return;
    fill(figures.energy);
    document.getElementById("pair").hidden = !figures.energy.data.some((trace) => trace.opacity < 1);
  }

  function drawPasses() {
    // Plotly cannot measure what is in a closed element.
    document.querySelectorAll(".changes[open] [data-figure]").forEach((place) => {
      draw(place, store.passes[place.dataset.figure]);
    });
  }

  function drawHardware() {
    document.querySelectorAll(".leaders [data-hardware]").forEach((item) => {
      item.hidden = item.dataset.hardware !== hardware();
    });
    draw(document.getElementById("front"), store.profiles[hardware()].front);
    draw(document.getElementById("components"), store.profiles[hardware()].components);
    drawLayers();
  }

  function drawAll() {
    if (variant) drawHardware();
    Object.entries(store.search).forEach(([id, figure]) => draw(document.getElementById(id), figure));
    drawPasses();
  }

  drawAll();
  document.querySelectorAll(".changes").forEach((details) => details.addEventListener("toggle", drawPasses));
  dark.addEventListener("change", drawAll);
  narrow.addEventListener("change", drawAll);
  if (!variant) return;
  document.getElementById("hardware").addEventListener("change", drawHardware);
  variant.addEventListener("change", drawLayers);
  document.getElementById("front").on("plotly_click", (event) => {
    const name = event.points[0].customdata;
    if (name === undefined) return;
    variant.value = name;
    drawLayers();
  });
})();
