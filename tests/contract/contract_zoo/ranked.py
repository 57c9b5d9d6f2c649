"""Outputs that are no plain float tensors, and sizes that depend on the data."""

import numpy as np
import onnx

from contract_zoo.case import below, case, integers_of, model, normal, uniform, weight, words


@case(x=normal(8, 32))
def class_by_argmax() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (int64[N] label, float[N,10] p) {
            [head] s = MatMul(x, w) p = Softmax(s) label = ArgMax<axis=1, keepdims=0>(s) }""",
        w=weight(32, 10),
    )


@case(x=normal(1, 8, 12, 12))
def map_of_classes() -> onnx.ModelProto:
    return model(
        """net (float[N,8,12,12] x) => (int64[N,12,12] map, bool[N,6,12,12] mask) {
            [a] h = Conv<pads=[1,1,1,1]>(x, w) r = Relu(h) [b] s = Conv(r, v)
            map = ArgMax<axis=1, keepdims=0>(s) mask = Greater(s, zero) }""",
        w=weight(16, 8, 3, 3),
        v=weight(6, 16, 1, 1),
        zero=np.float32(0),
    )


@case(x=normal(8, 32))
def best_five() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (float[N,5] best, int64[N,5] which) {
            [head] s = MatMul(x, w) best, which = TopK(s, five) }""",
        w=weight(32, 48),
        five=integers_of(5),
    )


@case(x=normal(1, 8, 6, 6))
def boxes_that_survive() -> onnx.ModelProto:
    return model(
        """net (float[1,8,6,6] x) => (float[M,4] boxes, float[M] scores, int64[M,3] chosen) {
            [c] h = Conv<pads=[1,1,1,1]>(x, w) r = Relu(h)
            [boxes] b0 = Conv(r, wb) b1 = Reshape(b0, four) b = Transpose<perm=[0,2,1]>(b1)
            [scores] s0 = Conv(r, ws) s1 = Reshape(s0, two) s = Sigmoid(s1)
            chosen = NonMaxSuppression<center_point_box=1>(b, s, most, overlap, least)
            i = Gather<axis=1>(chosen, two_) f = Squeeze(b, zero) boxes = Gather<axis=0>(f, i)
            k = Gather<axis=1>(chosen, one_) m = Squeeze(s, zero)
            v = Unsqueeze(k, minus) u = Unsqueeze(i, minus) at = Concat<axis=1>(v, u)
            scores = GatherND(m, at) }""",
        w=weight(24, 8, 3, 3),
        wb=weight(4, 24, 1, 1),
        ws=weight(2, 24, 1, 1),
        four=integers_of(1, 4, 36),
        two=integers_of(1, 2, 36),
        most=integers_of(10),
        overlap=np.float32([0.5]),
        least=np.float32([0.5]),
        one_=np.int64(1),
        two_=np.int64(2),
        zero=integers_of(0),
        minus=integers_of(-1),
    )


@case(x=normal(8, 32))
def places_that_are_not_zero() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (int64[2,M] where, float[N,48] y) {
            [first] a = MatMul(x, w) y = Relu(a) where = NonZero(y) }""",
        w=weight(32, 48),
    )


@case(x=normal(8, 32))
def rows_that_are_kept() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (float[M,16] y) {
            [gate] g = MatMul(x, wg) k0 = Greater(g, zero) k = Squeeze(k0, one) c = Compress<axis=0>(x, k)
            [head] y = MatMul(c, w) }""",
        wg=weight(32, 1),
        zero=np.float32(0),
        one=integers_of(1),
        w=weight(32, 16),
    )


@case(x=normal(8, 32))
def a_sequence_out() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (seq(float[N,8]) parts) {
            [head] s = MatMul(x, w) parts = SplitToSequence<axis=1>(s, size) }""",
        w=weight(32, 48),
        size=np.int64(8),
    )


@case(parts=lambda rng: [rng.standard_normal((2, 32)).astype(np.float32) for _ in range(3)])
def a_sequence_in() -> onnx.ModelProto:
    return model(
        """net (seq(float[N,32]) parts) => (float[M,48] y) {
            x = ConcatFromSequence<axis=0>(parts) [head] y = MatMul(x, w) }""",
        w=weight(32, 48),
    )


@case(x=normal(8, 32))
def a_sequence_inside() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (float[N,48] y) {
            [head] s = MatMul(x, w) parts = SplitToSequence<axis=1>(s, size) n = SequenceAt(parts, two)
            more = SequenceInsert(parts, n) length = SequenceLength(more) z = ConcatFromSequence<axis=1>(more)
            y = Slice(z, zero, end, one) }""",
        w=weight(32, 48),
        size=np.int64(8),
        two=np.int64(2),
        zero=integers_of(0),
        end=integers_of(48),
        one=integers_of(1),
    )


@case(x=normal(8, 32))
def an_optional_out() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (optional(float[N,48]) maybe) {
            [head] s = MatMul(x, w) maybe = Optional(s) }""",
        opset=18,
        w=weight(32, 48),
    )


@case(text=words(64, 5, 6))
def strings_in() -> onnx.ModelProto:
    pool = ", ".join(f'"w{number}"' for number in range(64))
    places = ", ".join(map(str, range(64)))
    return model(
        f"""net (string[N,6] text) => (float[N,24] y) {{
            [count] f = TfIdfVectorizer<mode="TF", min_gram_length=1, max_gram_length=1, max_skip_count=0,
                ngram_counts=[0], ngram_indexes=[{places}], pool_strings=[{pool}]>(text)
            [head] y = MatMul(f, w) }}""",
        w=weight(64, 24),
    )


@case(x=normal(8, 32))
def strings_out() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (string[N] label) {
            [head] s = MatMul(x, w) k = ArgMax<axis=1, keepdims=0>(s)
            label = ai.onnx.ml.LabelEncoder<keys_int64s=[0,1,2], values_strings=["a","b","c"]>(k) }""",
        w=weight(32, 3),
    )


@case(x=normal(8, 32))
def probabilities_by_name() -> onnx.ModelProto:
    return model(
        """net (float[N,32] x) => (seq(map(string, float)) prob) {
            [scale] c = ai.onnx.ml.Scaler<offset=[0.1], scale=[2.0]>(x) [a] h = MatMul(c, w) r = Relu(h)
            [b] s = MatMul(r, v) p = Softmax(s)
            prob = ai.onnx.ml.ZipMap<classlabels_strings=["a","b","c"]>(p) }""",
        w=weight(32, 48),
        v=weight(48, 3),
    )


@case(x=uniform(-1, 1, 8, 4))
def trees_beside_a_layer() -> onnx.ModelProto:
    return model(
        """net (float[N,4] x) => (float[N,1] t, float[N,16] y) {
            [trees] t = ai.onnx.ml.TreeEnsembleRegressor<n_targets=1, nodes_treeids=[0,0,0],
                nodes_nodeids=[0,1,2], nodes_featureids=[1,0,0], nodes_modes=["BRANCH_LEQ","LEAF","LEAF"],
                nodes_values=[0.1,0.0,0.0], nodes_truenodeids=[1,0,0], nodes_falsenodeids=[2,0,0],
                target_treeids=[0,0], target_nodeids=[1,2], target_ids=[0,0], target_weights=[1.5,-0.5]>(x)
            [a] h = MatMul(x, w) r = Tanh(h) [b] y = MatMul(r, v) }""",
        w=weight(4, 64),
        v=weight(64, 16),
    )


@case(x=normal(8, 32))
def linear_classifier_of_sklearn() -> onnx.ModelProto:
    numbers = ", ".join(f"{each:.4f}" for each in weight(3, 32).ravel())
    return model(
        f"""net (float[N,32] x) => (int64[N] label, float[N,3] scores) {{
            [lin] label, scores = ai.onnx.ml.LinearClassifier<classlabels_ints=[0,1,2], multi_class=1,
                post_transform="SOFTMAX", intercepts=[0.1,-0.1,0.0], coefficients=[{numbers}]>(x) }}"""
    )


@case(tokens=below(9, 12))
def values_that_occur() -> onnx.ModelProto:
    return model(
        """net (int64[N] tokens) => (int64[M] seen, float[M,48] y) {
            seen = Unique(tokens) [table] e = Gather(t, seen) [head] y = MatMul(e, w) }""",
        t=weight(64, 32),
        w=weight(32, 48),
    )
