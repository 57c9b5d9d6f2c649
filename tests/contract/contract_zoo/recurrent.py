"""LSTM, GRU and RNN of several sizes, and what exporters leave out of them."""

import numpy as np
import onnx

from contract_zoo.case import always, case, integers_of, model, normal, weight


def _gates(count: int, hidden: int, width: int, ways: int = 1) -> dict[str, np.ndarray]:
    return {
        "w": weight(ways, count * hidden, width),
        "r": weight(ways, count * hidden, hidden, like="r"),
        "b": weight(ways, 2 * count * hidden),
    }


@case(x=normal(5, 3, 16))
def lstm_of_size_24() -> onnx.ModelProto:
    return model(
        "net (float[T,N,16] x) => (float[T,1,N,24] y) { [rec] y = LSTM<hidden_size=24>(x, w, r, b) }",
        **_gates(4, 24, 16),
    )


@case(x=normal(5, 3, 13))
def lstm_of_odd_sizes_both_ways() -> onnx.ModelProto:
    return model(
        """net (float[T,N,13] x) => (float[T,2,N,7] y) {
            [rec] y = LSTM<hidden_size=7, direction="bidirectional">(x, w, r, b) }""",
        **_gates(4, 7, 13, 2),
    )


@case(x=normal(5, 3, 40))
def lstm_of_size_64_then_a_layer() -> onnx.ModelProto:
    return model(
        """net (float[T,N,40] x) => (float[T,N,10] y) {
            [rec] h = LSTM<hidden_size=64>(x, w, r, b) s = Squeeze(h, one) [head] y = MatMul(s, v) }""",
        **_gates(4, 64, 40),
        one=integers_of(1),
        v=weight(64, 10),
    )


@case(x=normal(5, 3, 16))
def two_lstms_stacked() -> onnx.ModelProto:
    lower = _gates(4, 24, 16, 2)
    return model(
        """net (float[T,N,16] x) => (float[T,1,N,32] y) {
            [lower] a = LSTM<hidden_size=24, direction="bidirectional">(x, w, r, b)
            t = Transpose<perm=[0,2,1,3]>(a) f = Reshape(t, shape)
            [upper] y = LSTM<hidden_size=32>(f, lw, lr) }""",
        **lower,
        shape=integers_of(0, 0, 48),
        lw=weight(1, 128, 48),
        lr=weight(1, 128, 32),
    )


@case(x=normal(5, 3, 16), h=normal(1, 3, 24), c=normal(1, 3, 24))
def lstm_with_states_passed_on() -> onnx.ModelProto:
    return model(
        """net (float[T,N,16] x, float[1,N,24] h, float[1,N,24] c)
            => (float[T,1,N,24] y, float[1,N,24] next_h, float[1,N,24] next_c) {
            [rec] y, next_h, next_c = LSTM<hidden_size=24>(x, w, r, b, , h, c) }""",
        **_gates(4, 24, 16),
    )


@case(x=normal(5, 3, 16))
def lstm_with_peepholes() -> onnx.ModelProto:
    return model(
        """net (float[T,N,16] x) => (float[T,1,N,24] y) {
            [rec] y = LSTM<hidden_size=24>(x, w, r, b, , , , p) }""",
        **_gates(4, 24, 16),
        p=weight(1, 72),
    )


@case(x=normal(5, 3, 16))
def lstm_of_which_the_last_state_is_read() -> onnx.ModelProto:
    return model(
        """net (float[T,N,16] x) => (float[1,N,5] y) {
            [rec] "", h = LSTM<hidden_size=24>(x, w, r, b) [head] y = MatMul(h, v) }""",
        **_gates(4, 24, 16),
        v=weight(24, 5),
    )


@case(x=normal(5, 3, 16))
def lstm_of_which_the_last_cell_is_read() -> onnx.ModelProto:
    return model(
        """net (float[T,N,16] x) => (float[1,N,5] y) {
            [rec] "", "", c = LSTM<hidden_size=24>(x, w, r) [drop] d, "" = Dropout(c)
            [head] y = MatMul(d, v) }""",
        w=weight(1, 96, 16),
        r=weight(1, 96, 24),
        v=weight(24, 5),
    )


@case(x=normal(7, 3, 16), lengths=always(7, 4, 2, dtype=np.int32))
def sequences_of_stated_lengths() -> onnx.ModelProto:
    return model(
        """net (float[T,N,16] x, int32[N] lengths) => (float[T,1,N,24] y, float[1,N,24] last) {
            [rec] y, last = GRU<hidden_size=24>(x, w, r, b, lengths) }""",
        **_gates(3, 24, 16),
    )


@case(x=normal(5, 3, 16))
def gru_of_which_the_last_state_is_read() -> onnx.ModelProto:
    return model(
        """net (float[T,N,16] x) => (float[1,N,5] y) {
            [rec] "", h = GRU<hidden_size=24, linear_before_reset=1>(x, w, r, b) [head] y = MatMul(h, v) }""",
        **_gates(3, 24, 16),
        v=weight(24, 5),
    )


@case(x=normal(5, 3, 16))
def gru_both_ways() -> onnx.ModelProto:
    return model(
        """net (float[T,N,16] x) => (float[T,2,N,20] y) {
            [rec] y = GRU<hidden_size=20, direction="bidirectional">(x, w, r, b) }""",
        **_gates(3, 20, 16, 2),
    )


@case(x=normal(5, 3, 16))
def gru_backwards_and_clipped() -> onnx.ModelProto:
    return model(
        """net (float[T,N,16] x) => (float[T,1,N,24] y) {
            [rec] y = GRU<hidden_size=24, direction="reverse", clip=0.5>(x, w, r, b) }""",
        **_gates(3, 24, 16),
    )


@case(x=normal(5, 3, 16))
def plain_rnn() -> onnx.ModelProto:
    return model(
        """net (float[T,N,16] x) => (float[T,1,N,32] y, float[1,N,32] last) {
            [rec] y, last = RNN<hidden_size=32, activations=["Relu"]>(x, w, r, b) }""",
        **_gates(1, 32, 16),
    )


@case(x=normal(3, 5, 16))
def rnn_with_the_batch_first() -> onnx.ModelProto:
    return model(
        """net (float[N,T,16] x) => (float[T,1,N,32] y) {
            [turn] t = Transpose<perm=[1,0,2]>(x) [rec] y = RNN<hidden_size=32>(t, w, r, b) }""",
        **_gates(1, 32, 16),
    )
