# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Accuracy against energy
#
# A small network reads handwritten digits. Here it is compressed in several ways, and each is asked two
# questions: how many digits does it still read, and what does one inference cost on an accelerator?
#
# Everything below goes through the Python interface. `compress run recipes/digits.yaml` does the same
# from the command line, and writes a report with these plots.

# %%
import sys
import tempfile
from pathlib import Path

import compress
from compress.passes import FloatWeights, Int4Weights, Int8Static, PruneChannels

sys.path.insert(0, "../recipes")
import digits_cnn

# %% [markdown]
# ## Load
#
# `compress.load` takes a PyTorch module, an ONNX file, a Hugging Face folder or a function in a Python
# file. The module is exported to ONNX once; from then on the graph is the model. Passes may read the
# calibration data.

# %%
model = compress.load(digits_cnn.build(), calibration=digits_cnn.calibration)
print(f"{len(model.graph)} nodes, {model.weight_bytes:,} bytes of weights")

# %% [markdown]
# ## Compress
#
# A pass is a function from model to model. Its settings are given at construction. A pipeline is a
# sequence of passes.

# %%
pipelines = {
    "original": compress.Pipeline([]),
    "float16": compress.Pipeline([FloatWeights()]),
    "int8": compress.Pipeline([Int8Static()]),
    "int4 weights": compress.Pipeline([Int4Weights()]),
    "pruned": compress.Pipeline([PruneChannels(ratio=0.1)]),
    "pruned, int8": compress.Pipeline([PruneChannels(ratio=0.1), Int8Static()]),
    "pruned more, int8": compress.Pipeline([PruneChannels(ratio=0.25), Int8Static()]),
}
models = {name: pipeline(model) for name, pipeline in pipelines.items()}

# %% [markdown]
# Every pass records what it did to each layer, and why it left others alone.

# %%
from compress.report import show_changes

show_changes(models["pruned, int8"].changes)

# %% [markdown]
# ## Score
#
# A variant is saved as an ordinary ONNX file and runs in ONNX Runtime, here on images that training has
# not seen. `compress.estimate` reads the same graph, at the bits that it stores, and computes what one
# inference costs on a hardware profile: joules by component, bytes moved at each level of memory, seconds.
# The numbers of a profile come from publications where there are any; every estimate has a 90 %
# interval, and so has every ratio.

# %%
HARDWARE = "tpu-v4i"


def accuracy(variant):
    """Return the fraction of unseen digits that a variant reads correctly."""
    right = [variant.run(feeds)[0].argmax(-1) == labels for feeds, labels in digits_cnn.evaluation()]
    return sum(row.sum() for row in right) / sum(row.size for row in right)


with tempfile.TemporaryDirectory() as folder:
    sizes = {
        name: variant.save(Path(folder, f"{name}.onnx")).stat().st_size for name, variant in models.items()
    }
accuracies = {name: accuracy(variant) for name, variant in models.items()}
scores = {name: compress.estimate(variant, HARDWARE).score() for name, variant in models.items()}

# %% [markdown]
# ## Compare
#
# A variant is Pareto-optimal if no other is at least as accurate for at most its energy, and better in one.

# %%
from compress.report import accuracy_vs_energy, energy_by_component, energy_by_layer, roofline, show
from compress.results import Metric, Results, VariantResult


def is_optimal(name):
    """Tell whether no other variant beats this one."""
    ours = (accuracies[name], -scores[name].energy_joules)
    rivals = [(accuracies[other], -scores[other].energy_joules) for other in models]
    return not any(rival != ours and rival[0] >= ours[0] and rival[1] >= ours[1] for rival in rivals)


results = Results(
    recipe={"title": "Digits"},
    environment={},
    variants=[
        VariantResult(
            name=name,
            passes=[str(each) for each in pipelines[name].passes],
            status="done",
            file_bytes=sizes[name],
            metric=Metric(
                name="accuracy", value=accuracies[name], delta=accuracies[name] - accuracies["original"]
            ),
            hardware={HARDWARE: scores[name]},
            pareto=[HARDWARE] if is_optimal(name) else [],
        )
        for name in models
    ],
)
show(results)

# %%
accuracy_vs_energy(results, HARDWARE)

# %% [markdown]
# ## Where the energy goes
#
# First by component: arithmetic, each level of memory, and the static power that is drawn for as long as
# the chip runs.

# %%
energy_by_component(results, HARDWARE)

# %% [markdown]
# Then by layer. The upper, fainter bar is the original, the lower bar the variant, and the number is their
# ratio.

# %%
energy_by_layer(scores["int8"], scores["original"])

# %% [markdown]
# The roofline shows why: layers near the slope wait for memory, layers near the flat part for arithmetic.

# %%
roofline(scores["int8"], scores["original"])
