"""The cases of nn.py: recurrent layers, attention and transformers."""

import itertools

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

from nn_cases import Case, double, f

cases = []


def case(name, *args, inputs, call=None, said=None, **options):
    known = {key: options.pop(key) for key in ("dtype", "differentiable", "fails", "new") if key in options}
    call = call or (lambda module, *inputs: module(*inputs))
    cases.append(Case(name, args, options, inputs, call, said or {}, **known))


def recurrent():
    lengths = [2, 5, 1, 5]

    def stateful(module, x, *state):
        state = state[0] if len(state) == 1 else state
        return module(x, state) if len(state) else module(x)

    def packed(module, x, *state):
        packed = pack_padded_sequence(x, lengths, batch_first=module.batch_first, enforce_sorted=False)
        output, last = stateful(module, packed, *state)
        padded, sizes = pad_packed_sequence(output, module.batch_first, padding_value=-3.0, total_length=6)
        return output, last, padded, sizes

    def of_sequences(module, *sequences):
        output, last = module(pack_sequence(sequences, enforce_sorted=False))
        return output.data, output.batch_sizes, last

    def unsorted(module, x, *state):
        output, last, padded, sizes = packed(module, x, *state)
        return output.data, output.batch_sizes, output.sorted_indices, output.unsorted_indices, last, padded, sizes

    options = [
        {}, {"bias": False}, {"num_layers": 2}, {"bidirectional": True}, {"batch_first": True},
        {"num_layers": 3, "bidirectional": True, "batch_first": True, "dropout": 0.4}, {"num_layers": 2, "dropout": 0.5},
    ]  # fmt: skip
    for name, (at, given) in itertools.product(("LSTM", "GRU", "RNN"), enumerate(options)):
        extra = [{}]
        if name == "LSTM":
            extra.append({"proj_size": 2})
        if name == "RNN":
            extra.append({"nonlinearity": "relu"})
        for more in extra:
            kwargs = given | more
            layers = kwargs.get("num_layers", 1) * (2 if kwargs.get("bidirectional") else 1)
            first = kwargs.get("batch_first")
            x = lambda first=first: f(4, 5, 3) if first else f(5, 4, 3)
            size = kwargs.get("proj_size", 4)
            states = lambda name=name, layers=layers, size=size: [f(layers, 4, size), f(layers, 4, 4)][: 2 if name == "LSTM" else 1]
            case(name, 3, 4, inputs=lambda x=x: [x()], call=stateful, **kwargs)
            case(name, 3, 4, inputs=lambda x=x, states=states: [x(), *states()], call=stateful, differentiable=3, **kwargs)
            said = {"lengths": lengths}
            case(name, 3, 4, inputs=lambda x=x: [x()], call=unsorted, said=said, **kwargs)
            with_state = lambda x=x, states=states: [x(), *states()]
            case(name, 3, 4, inputs=with_state, call=unsorted, said=said, differentiable=3, **kwargs)
        if at == 5:
            case(name, 3, 4, inputs=lambda: [f(5, 3)], call=stateful, **given)
            sequences = lambda: [f(2, 3), f(4, 3), f(1, 3)]
            case(name, 3, 4, inputs=sequences, call=of_sequences, said={"sequences": True}, differentiable=3, **given)
            case(name, 3, 4, inputs=lambda: [f(4, 5, 3)], call=stateful, dtype=double, **given)
    for name in ("LSTM", "GRU", "RNN"):
        unbatched = lambda name=name: [f(5, 3), *[f(1, 4), f(1, 4)][: 2 if name == "LSTM" else 1]]
        case(name, 3, 4, inputs=unbatched, call=stateful, differentiable=3)
        case(name, 3, 4, inputs=lambda: [f(5, 4, 2)], call=stateful, fails=True)
        case(name, 3, 4, inputs=lambda: [f(5)], call=stateful, fails=True)
        wrong = lambda name=name: [f(5, 4, 3), *[f(1, 3, 4), f(1, 3, 4)][: 2 if name == "LSTM" else 1]]
        case(name, 3, 4, inputs=wrong, call=stateful, fails=True)
        case(name, 3, 4, inputs=lambda: [f(5, 4, 3)], call=stateful, dropout=1.5, fails=True)
    case("LSTM", 3, 4, inputs=lambda: [f(5, 4, 3)], proj_size=4, fails=True)

    for name, bias, batch in itertools.product(("LSTMCell", "GRUCell", "RNNCell"), (True, False), ((2,), ())):
        for kwargs in ({}, {"nonlinearity": "relu"}) if name == "RNNCell" else ({},):
            many = 2 if name == "LSTMCell" else 1
            kwargs = kwargs | {"bias": bias}
            case(name, 3, 4, inputs=lambda batch=batch: [f(*batch, 3)], call=stateful, **kwargs)
            states = lambda batch=batch, many=many: [f(*batch, 3), *[f(*batch, 4), f(*batch, 4)][:many]]
            case(name, 3, 4, inputs=states, call=stateful, differentiable=3, **kwargs)


def attention():
    def attend(said):
        def call(module, q, k, v, attn_mask=None, key_padding_mask=None):
            if said.get("is_causal"):
                attn_mask = nn.Transformer.generate_square_subsequent_mask(q.shape[said.get("time", 0)], dtype=q.dtype)
            return module(
                q, k, v, attn_mask=attn_mask, key_padding_mask=key_padding_mask, is_causal=bool(said.get("is_causal")),
                need_weights=said.get("weights", "none") != "none", average_attn_weights=said.get("weights") != "heads",
            )  # fmt: skip

        return call

    def multihead(inputs, said=None, args=(8, 2), **options):
        case("MultiheadAttention", *args, inputs=inputs, call=attend(said or {}), said=said, differentiable=3, **options)

    def qkv(first=False, kdim=8, vdim=8, batch=3, queries=4, keys=5):
        q, k, v = f(queries, batch, 8), f(keys, batch, kdim), f(keys, batch, vdim)
        return [x.transpose(0, 1).contiguous() for x in (q, k, v)] if first else [q, k, v]

    later = torch.ones(4, 5, dtype=torch.bool).triu(2)
    numbers = torch.linspace(-1, 1, 20).view(4, 5)
    per_head = torch.linspace(-2, 2, 120).view(6, 4, 5)
    some = torch.tensor([[0, 0, 0, 0, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    masks = {
        "none": [], "later": [later], "numbers": [numbers], "heads": [per_head], "heads, yes or no": [per_head > 1],
        "padding": [None, some], "padding, numbers": [None, some * -0.7], "both": [later, some],
        "numbers and padding": [numbers, some * -0.7], "heads and padding": [per_head, some],
        "nothing left": [torch.ones(4, 5, dtype=torch.bool)],
    }  # fmt: skip
    for name, mask in masks.items():
        for weights in ("none", "mean", "heads"):
            # Queries without any key get NaN with weights, and 0 without.
            multihead(lambda mask=mask: qkv() + mask, {"weights": weights})
            more = {"add_bias_kv": True, "add_zero_attn": True, "batch_first": True}
            multihead(lambda mask=mask: qkv(True) + mask, {"weights": weights}, **more)
    for options in (
        {}, {"bias": False}, {"add_bias_kv": True}, {"add_zero_attn": True}, {"kdim": 5}, {"vdim": 6}, {"kdim": 8, "vdim": 8},
        {"kdim": 5, "vdim": 6, "bias": False, "add_bias_kv": True, "add_zero_attn": True}, {"dropout": 0.4},
    ):  # fmt: skip
        for weights, first in itertools.product(("none", "mean", "heads"), (False, True)):
            sizes = {"kdim": options.get("kdim", 8), "vdim": options.get("vdim", 8)}
            inputs = lambda sizes=sizes, first=first: qkv(first, **sizes)
            multihead(inputs, {"weights": weights}, batch_first=first, **options)
    for weights in ("none", "mean"):
        for more in ({}, {"add_bias_kv": True}, {"add_zero_attn": True}):
            # Without weights PyTorch's causal attention excludes the keys that are added.
            if weights == "mean" or not more:
                multihead(lambda: qkv(keys=4), {"weights": weights, "is_causal": True}, **more)
            padded = lambda: [*qkv(keys=4), None, some[:, 1:]]
            multihead(padded, {"weights": weights, "is_causal": True}, **more)
        said = {"weights": weights, "is_causal": True, "time": 1}
        multihead(lambda: qkv(True, keys=4), said, batch_first=True)
        sample = lambda: [f(4, 8), f(5, 8), f(5, 8)]
        for first in (False, True):
            multihead(sample, {"weights": weights}, batch_first=first)
            multihead(lambda: [*sample(), numbers, some[0]], {"weights": weights}, batch_first=first)
    multihead(qkv, {"weights": "none"}, dtype=double)

    # One tensor for all three.
    def itself(module, x, mask=None):
        return module(x, x, x, attn_mask=mask, need_weights=False)

    for options in ({}, {"bias": False}, {"add_bias_kv": True, "batch_first": True}):
        case("MultiheadAttention", 8, 2, inputs=lambda: [f(4, 3, 8)], call=itself, said={"itself": True}, **options)
    multihead(qkv, args=(8, 3), fails=True)
    multihead(lambda: qkv(kdim=7), fails=True)
    multihead(lambda: [*qkv(), later[:, 1:]], fails=True)
    multihead(lambda: [*qkv(), None, some[1:]], fails=True)
    multihead(lambda: [f(4, 3, 8), f(5, 2, 8), f(5, 2, 8)], fails=True)


def transformers():
    causal = nn.Transformer.generate_square_subsequent_mask
    padding = torch.tensor([[0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [0, 0, 0, 1, 1]], dtype=torch.bool)
    small = {"dim_feedforward": 12}
    variants = [
        {}, {"norm_first": True}, {"activation": "gelu"}, {"dropout": 0.0, "batch_first": True}, {"bias": False},
        {"norm_first": True, "layer_norm_eps": 1e-3, "activation": "gelu", "dropout": 0.3},
        {"norm_first": True, "batch_first": True, "dropout": 0.0},
    ]  # fmt: skip
    # Masks of dropout are drawn in the order of memory, and with `batch_first` PyTorch's attention leaves the batch second there.
    for given in variants:
        options = small | given
        # Several layers round gradients by more than a millionth of single precision.
        stack = {"dtype": double}
        first = options.get("batch_first", False)
        x = lambda steps=5, first=first: f(3, steps, 8) if first else f(steps, 3, 8)

        def encode(module, src, mask=None, key_padding_mask=None):
            return module(src, mask, key_padding_mask)

        def decode(module, tgt, memory, tgt_mask=None, memory_mask=None, tgt_padding=None, memory_padding=None):
            paddings = {"tgt_key_padding_mask": tgt_padding, "memory_key_padding_mask": memory_padding}
            return module(tgt, memory, tgt_mask, memory_mask, **paddings)

        def encode_and_decode(module, src, tgt, src_mask=None, tgt_mask=None, memory_mask=None, padding=None):
            return module(src, tgt, src_mask, tgt_mask, memory_mask, padding, None, padding)

        encoder_layer = lambda **options: nn.TransformerEncoderLayer(8, 2, **options)
        decoder_layer = lambda **options: nn.TransformerDecoderLayer(8, 2, **options)
        norm = lambda: nn.LayerNorm(8)
        stacks = [
            ("TransformerEncoderLayer", (8, 2), None, {}),
            ("TransformerEncoder", (8, 2, 2), lambda *_, **o: nn.TransformerEncoder(encoder_layer(**o), 2, enable_nested_tensor=False), {}),
            ("TransformerEncoder", (8, 2, 3), lambda *_, **o: nn.TransformerEncoder(encoder_layer(**o), 3, norm(), False), {"norm": True}),
        ]  # fmt: skip
        for name, args, new, said in stacks:
            for mask in ([], [causal(5)], [causal(5), padding], [None, padding], [None, padding * -0.6]):
                more = options | (stack if new else {})
                case(name, *args, inputs=lambda mask=mask, x=x: [x(), *mask], call=encode, said=said, new=new, **more)
        stacks = [
            ("TransformerDecoderLayer", (8, 2), None, {}),
            ("TransformerDecoder", (8, 2, 2), lambda *_, **o: nn.TransformerDecoder(decoder_layer(**o), 2), {}),
            ("TransformerDecoder", (8, 2, 3), lambda *_, **o: nn.TransformerDecoder(decoder_layer(**o), 3, norm()), {"norm": True}),
        ]  # fmt: skip
        cross = torch.linspace(-1, 1, 20).view(4, 5)
        for name, args, new, said in stacks:
            for mask in ([], [causal(4)], [causal(4), cross, None, padding], [None, None, padding[:, 1:], padding]):
                inputs = lambda mask=mask, x=x: [x(4), x(5), *mask]
                more = options | (stack if new else {})
                case(name, *args, inputs=inputs, call=decode, said=said, new=new, differentiable=2, **more)
        layers = {"num_encoder_layers": 2, "num_decoder_layers": 1}
        for mask in ([], [None, causal(4)], [causal(5), causal(4), cross, padding]):
            inputs = lambda mask=mask, x=x: [x(5), x(4), *mask]
            more = layers | options | stack
            case("Transformer", 8, 2, inputs=inputs, call=encode_and_decode, differentiable=2, **more)
    case("TransformerEncoderLayer", 8, 2, inputs=lambda: [f(5, 8)], **small)
    case("TransformerEncoderLayer", 8, 3, inputs=lambda: [f(5, 3, 8)], fails=True, **small)


for part in (recurrent, attention, transformers):
    part()
