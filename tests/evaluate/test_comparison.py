"""The diagnosis of `compress compare`: what is lost, where, and why."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import compress
from compress.cpu import saturates
from compress.data import Data
from compress.diagnose import kernels
from compress.errors import DataError, ModelError
from compress.evaluate.comparison import Comparison, LayerNoise, compare
from compress.graph.optimized import as_run
from compress.graph.session import session
from compress.passes import Int4Weights, Int8Dynamic, Int8Static, Int8Weights, PruneChannels
from compress.report import show_comparison

FEATURES = 64
Build = Callable[..., onnx.ModelProto]
DIGITS = "node_conv2d", "node_conv2d_1", "node_conv2d_2", "node_conv2d_3", "node_linear", "node_linear_1"


def batches(low: float = 0.5, high: float = 1.0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{"x": rng.uniform(low, high, (8, FEATURES)).astype(np.float32)} for _ in range(2)]


@pytest.fixture
def two_layers(build: Build, normal: Callable[..., np.ndarray], tmp_path: Path) -> Path:
    """Two linear layers; in the first, pairs of products are as large as they can be."""
    proto = build(
        f"""g (float[N,{FEATURES}] x) => (float[N,16] y) {{
            [first] h = Gemm(x, w, b)
            [act] r = Relu(h)
            [second] y = Gemm(r, v, b)
        }}""",
        w=np.ones((FEATURES, 16), np.float32),
        v=normal(16, 16),
        b=np.zeros(16, np.float32),
    )
    onnx.save(proto, tmp_path / "original.onnx")
    return tmp_path / "original.onnx"


def made(path: Path, each: Any, calibration: Any = None) -> Path:
    """Apply a pass to a file and save the result beside it."""
    variant = compress.Pipeline([each])(compress.load(path, calibration=calibration or batches()))
    return variant.save(path.with_name("variant.onnx"))


def layer(found: Comparison, name: str) -> LayerNoise:
    return next(each for each in found.layers if each.name == name)


@pytest.fixture
def digits_file(digits: Any, tmp_path: Path) -> Path:
    path: Path = digits.save(tmp_path / "original.onnx")
    return path


def test_a_model_agrees_with_itself(digits_file: Path) -> None:
    found = compare(digits_file, digits_file)
    assert [each.name for each in found.layers] == list(DIGITS)
    assert all(each.added < 1e-10 and each.cause == "none" for each in found.layers)
    assert list(found.still_float) == list(DIGITS)
    assert (found.quantized_macs, found.quantized_weights) == (0.0, 0.0)
    assert found.data == "random numbers"
    assert not found.unfused and not found.slow and not found.not_found


def test_integers_are_found_layer_by_layer(digits: Any, digits_file: Path) -> None:
    variant = compress.Pipeline([Int8Static()])(digits).save(digits_file.with_name("int8.onnx"))
    found = compare(digits_file, variant, digits.evaluation, described="images")
    assert [each.name for each in found.layers] == list(DIGITS)
    assert all(each.snr_db and 30 < each.snr_db < 60 for each in found.layers)
    assert found.agreement.snr_db == pytest.approx(layer(found, "node_linear_1").snr_db, abs=0.1)
    assert found.worst is not None and found.worst.cause in ("activations", "weights")
    assert (found.quantized_macs, found.quantized_weights, found.still_float) == (1.0, 1.0, {})
    assert not found.unfused
    assert found.weight_bytes[1] < 0.3 * found.weight_bytes[0]


def test_weights_read_through_a_dequantizer_are_named(digits: Any, digits_file: Path) -> None:
    variant = compress.Pipeline([Int4Weights()])(digits).save(digits_file.with_name("int4.onnx"))
    found = compare(digits_file, variant, digits.evaluation)
    named = {each.layer for each in found.unfused}
    assert named <= set(DIGITS[:4])  # the linear layers run in MatMulNBits
    assert found.worst is not None and found.worst.cause == "weights"
    assert not found.slow


def test_a_range_that_cuts_values_off_is_the_cause(two_layers: Path) -> None:
    narrow = made(two_layers, Int8Static(), batches(0, 0.5))
    found = compare(two_layers, narrow, Data(batches(0, 1)))
    first = layer(found, "first")
    assert first.cause == "range"
    assert first.clipped is not None and first.clipped > 0.45
    assert found.worst == first


def test_an_outlier_channel_is_the_cause(two_layers: Path) -> None:
    data = batches(-1, 1)
    for batch in data:
        batch["x"][:, 3] *= 200
    first = layer(compare(two_layers, made(two_layers, Int8Static(), data), Data(data)), "first")
    assert first.cause == "outlier channel"
    assert first.outlier == pytest.approx(200, rel=0.1)


def test_sums_that_saturate_are_the_cause_where_they_do(two_layers: Path) -> None:
    found = compare(two_layers, made(two_layers, Int8Static(weight_bits=8)), Data(batches()))
    first = layer(found, "first")
    assert (first.cause == "saturation") == saturates()
    assert (first.saturation > 0.01) == saturates()
    assert any("8-bit signed weights" in each.problem for each in found.slow) == saturates()


def test_kernels_that_lack_their_fast_level_are_named(two_layers: Path) -> None:
    variant = made(two_layers, Int8Weights(operators="onnxruntime"))
    proto = onnx.load(variant)
    blocked = [node for node in proto.graph.node if node.op_type == "MatMulNBits"]
    assert blocked and not compare(two_layers, variant).slow
    for node in blocked:
        next(each for each in node.attribute if each.name == "accuracy_level").i = 0
    onnx.save(proto, variant)
    found = compare(two_layers, variant).slow
    assert [each.layer for each in found] == [node.name for node in blocked]
    assert "accuracy_level=4" in found[0].advice


def test_layers_left_in_float_say_why_if_it_is_known(two_layers: Path) -> None:
    found = compare(two_layers, made(two_layers, Int8Static(exclude=("second",))), Data(batches()))
    assert list(found.still_float) == ["second"]
    assert found.quantized_weights == pytest.approx(0.8)
    assert found.quantized_macs == pytest.approx(0.8)


def test_other_tools_files(two_layers: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(batches())

        def get_next(self) -> Any:
            return next(self.left, None)

    variant = two_layers.with_name("variant.onnx")
    quantize_static(
        two_layers, variant, Reader(), activation_type=QuantType.QUInt8, weight_type=QuantType.QUInt8
    )
    found = compare(two_layers, variant, Data(batches()))
    assert [each.name for each in found.layers] == ["first", "second"]
    assert all(each.snr_db and each.snr_db > 25 for each in found.layers)
    assert found.quantized_weights == 1.0


def test_ranges_of_each_run_are_explained_too(two_layers: Path) -> None:
    stretched = batches()
    for feeds in stretched:
        feeds["x"][:, 3] *= 200
    found = compare(two_layers, made(two_layers, Int8Dynamic()), Data(stretched))
    stretched_layer = layer(found, "first")
    assert (stretched_layer.cause, stretched_layer.clipped) == ("outlier channel", 0.0)
    assert found.quantized_macs == found.quantized_weights == 1.0


def test_convolutions_with_ranges_of_each_run_are_called_slow(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxruntime.quantization import quantize_dynamic

    monkeypatch.setattr("compress.diagnose.kernels.saturates", lambda: False)  # its weights have eight bits
    text = "g (float[N,4,6,6] x) => (float[N,8,4,4] y) { [only] y = Conv(x, w) }"
    original = tmp_path / "conv.onnx"
    onnx.save(
        build(text, w=np.random.default_rng(0).standard_normal((8, 4, 3, 3)).astype(np.float32)), original
    )
    quantize_dynamic(original, tmp_path / "dynamic.onnx")
    (finding,) = compare(original, tmp_path / "dynamic.onnx").slow
    assert "ConvInteger" in finding.problem and "calibration" in finding.advice


def test_a_recurrent_model_is_compared_whole(recurrent: Any, tmp_path: Path) -> None:
    original = recurrent.save(tmp_path / "original.onnx")
    variant = compress.Pipeline([Int8Weights()])(recurrent).save(tmp_path / "variant.onnx")
    found = compare(original, variant, recurrent.calibration)
    assert [each.op_type for each in found.layers] == ["GRU", "LSTM"]
    assert found.worst is not None and found.quantized_weights == 1.0


def test_layers_in_bodies_are_named_and_their_weights_counted(
    build: Build, normal: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = """g (float[N,64] x, bool flag) => (float[N,16] y) {
        [outer] h = MatMul(x, w)
        [choice] y = If (flag) <
            then_branch = one () => (float[N,16] a) { [left] a = MatMul(h, v) },
            else_branch = other () => (float[N,16] b) { [right] b = MatMul(h, u) }
        >
    }"""
    original = tmp_path / "original.onnx"
    onnx.save(build(text, w=normal(64, 64), v=normal(64, 16), u=normal(64, 16)), original)
    data = [{"x": normal(4, 64), "flag": np.array(True)}]
    found = compare(original, made(original, Int8Weights(include=("outer",)), data), Data(data))
    assert [each.name for each in found.layers] == ["outer"]
    assert sorted(found.in_bodies) == ["left", "right"]
    assert sorted(found.still_float) == ["left", "right"]
    assert found.quantized_weights == pytest.approx(64 / (64 + 2 * 16))
    show_comparison(found)
    assert "in bodies, where values are not compared: left, right" in " ".join(
        capsys.readouterr().out.split()
    )


def test_labels_are_compared_by_their_share_and_files_of_other_operator_sets(
    build: Build, normal: Any, tmp_path: Path
) -> None:
    text = """g (float[N,64] x) => (int64[N] label) {
        [first] h = MatMul(x, w) [last] c = MatMul(h, v) label = ArgMax<axis=1, keepdims=0>(c)
    }"""
    original = tmp_path / "original.onnx"
    onnx.save(build(text, opset=11, ir_version=8, w=normal(64, 64), v=normal(64, 99)), original)
    data = [{"x": normal(32, 64)} for _ in range(2)]
    variant = made(original, Int4Weights(), data)
    found = compare(original, variant, Data(data))
    runs = [[session(each).run(None, feeds)[0] for feeds in data] for each in (original, variant)]
    share = float(np.mean(np.array(runs[0]) == np.array(runs[1])))
    assert (found.agreement.snr_db, found.agreement.equal) == (None, pytest.approx(share))
    assert 0 < share < 1
    assert "Infinity" not in found.model_dump_json()


def test_models_that_cannot_be_compared(two_layers: Path, build: Build, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    onnx.save(build("g (float[N,8] z) => (float[N,8] y) { y = Relu(z) }"), other)
    with pytest.raises(ModelError, match="the inputs differ: x in the original, z in the variant"):
        compare(two_layers, other)
    onnx.save(build("g (float[N,2,8] x) => (float[N,2,8] y) { y = Relu(x) }"), other)
    with pytest.raises(ModelError, match="input 'x' differs: FLOAT"):
        compare(two_layers, other)
    onnx.save(build("g (float[N,8] x) => (float[N,8] y) { y = Relu(x) }"), other)
    with pytest.raises(DataError, match=r"other\.onnx cannot run on these inputs"):
        compare(two_layers, other, Data(batches()))
    with pytest.raises(ModelError, match=r"compare takes two \.onnx files"):
        compare(two_layers, tmp_path)


def test_pruned_channels_are_noise_and_no_crash(digits: Any, digits_file: Path) -> None:
    variant = compress.Pipeline([PruneChannels(ratio=0.3)])(digits).save(digits_file.with_name("pruned.onnx"))
    found = compare(digits_file, variant, digits.evaluation)
    assert found.quantized_weights == 0.0
    assert any(each.cause == "other shape" for each in found.layers)
    assert all(np.isfinite(each.added) for each in found.layers)
    assert all(each.snr_db is None for each in found.layers if each.cause == "other shape")
    assert json.loads(found.model_dump_json())["layers"]


def test_the_terminal_says_what_loses_and_why(two_layers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_comparison(compare(two_layers, made(two_layers, Int8Static(), batches(0, 0.5)), Data(batches(0, 1))))
    printed = " ".join(capsys.readouterr().out.split())
    assert "first loses most: a quantizer cuts values off" in printed
    assert "Random inputs" not in printed
    show_comparison(compare(two_layers, two_layers))
    printed = " ".join(capsys.readouterr().out.split())
    assert "Random inputs show little" in printed
    assert "still float: first, second" in printed
    assert "loses most" not in printed


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    from compress import cli

    monkeypatch.setattr("sys.argv", ["compress", "compare", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def test_the_command_prints_json(
    two_layers: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(two_layers.parent)
    Path("inputs.py").write_text(
        "import numpy as np\n\n\ndef data():\n    return [np.ones((4, 64), np.float32)]\n"
    )
    Path("recipe.yaml").write_text(
        "version: 1\nmodel: original.onnx\ndata: inputs.py:data\nvariants: {a: []}\n"
    )
    for option in (["--data", "inputs.py:data"], ["--recipe", "recipe.yaml"]):
        assert command(monkeypatch, "original.onnx", "original.onnx", "--json", *option) == 0
        record = json.loads(capsys.readouterr().out)
        assert (record["data"], record["batches"]) == ("inputs.py:data", 1)
        assert (record["agreement"]["snr_db"], record["agreement"]["equal"]) == (None, 1.0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["original.onnx", "no.onnx"], "no.onnx: no such file"),
        (["original.onnx", "original.onnx", "--data", "inputs"], "--data inputs: write file.py:function"),
        (["original.onnx", "original.onnx", "--data", "a.py:f", "--recipe", "r.yaml"], "not both"),
        (["original.onnx", "original.onnx", "--data", "a.py:f"], "no such file"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    said: str,
    two_layers: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(two_layers.parent)
    assert command(monkeypatch, *arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and said in err and err.count("\n") == 1


@pytest.mark.parametrize(("bits", "named"), [(7, False), (8, True)])
def test_eight_bit_weights_are_named_on_a_processor_that_saturates(
    bits: int, named: bool, two_layers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = made(two_layers, Int8Static(weight_bits=bits))
    monkeypatch.setattr("compress.diagnose.kernels.saturates", lambda: True)
    found = kernels.slow(as_run(variant).graph)
    assert [each.layer for each in found] == (["first", "second"] if named else [])
    assert all("7-bit weights" in each.advice for each in found)


def test_weights_behind_dynamic_quantization_are_found(two_layers: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    variant = two_layers.with_name("variant.onnx")
    quantize_dynamic(two_layers, variant)
    found = compare(two_layers, variant, Data(batches()))
    assert not found.not_found
    assert found.worst is not None and found.worst.cause == "weights"
