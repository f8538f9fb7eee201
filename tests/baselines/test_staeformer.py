"""STAEformer against the authors' model, written out once more from the tensors of one of their checkpoints."""

import math
from pathlib import Path

import pytest
import torch

from baselines.STAEformer import STAEformer, STAEformerConfig, load_authors_state_dict

L, H, N, D, HEADS, LAYERS = 12, 12, 11, 152, 4, 3
README = Path(__file__).parents[2] / "baselines" / "STAEformer" / "README.md"


def authors_state_dict(*, num_features=N, seed=0):
    """Random float64 tensors under the authors' names and in the published sizes, none of them at its initial value."""
    g = torch.Generator().manual_seed(seed)

    def linear(name, rows, columns):
        return {
            f"{name}.weight": torch.randn(rows, columns, generator=g, dtype=torch.float64) / math.sqrt(columns),
            f"{name}.bias": torch.randn(rows, generator=g, dtype=torch.float64) / 3,
        }

    def norm(name):
        weight, bias = torch.randn(2, D, generator=g, dtype=torch.float64) / 3
        return {f"{name}.weight": 1 + weight, f"{name}.bias": bias}

    tensors = {
        "adaptive_embedding": torch.randn(L, num_features, 80, generator=g, dtype=torch.float64),
        **linear("input_proj", 24, 3),
        "tod_embedding.weight": torch.randn(288, 24, generator=g, dtype=torch.float64),
        "dow_embedding.weight": torch.randn(7, 24, generator=g, dtype=torch.float64),
        **linear("output_proj", H, L * D),
    }
    for axis in "ts":
        for i in range(LAYERS):
            layer = f"attn_layers_{axis}.{i}"
            for projection in ("FC_Q", "FC_K", "FC_V", "out_proj"):
                tensors |= linear(f"{layer}.attn.{projection}", D, D)
            tensors |= linear(f"{layer}.feed_forward.0", 256, D)
            tensors |= linear(f"{layer}.feed_forward.2", D, 256)
            tensors |= norm(f"{layer}.ln1") | norm(f"{layer}.ln2")
    return tensors


def authors_forward(tensors, x):
    """The authors' model in evaluation mode: `[B, L, N, 3]` -> `[B, H, N]`.

    The three channels are the z-scored value, time of day in [0, 1) and day of week as 0 to 6.
    """

    def linear(name, y):
        return y @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def norm(name, y):
        centred = y - y.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return centred / deviation * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    def attention(name, rows):
        """One sequence `[S, D]`, head by head."""
        q, k, v = (linear(f"{name}.{projection}", rows) for projection in ("FC_Q", "FC_K", "FC_V"))
        size = D // HEADS
        heads = []
        for start in range(0, D, size):
            part = slice(start, start + size)
            scores = (q[:, part] @ k[:, part].T / math.sqrt(size)).exp()
            heads.append(scores / scores.sum(-1, keepdim=True) @ v[:, part])
        return linear(f"{name}.out_proj", torch.cat(heads, dim=-1))

    def layer(name, rows):
        rows = norm(f"{name}.ln1", rows + attention(f"{name}.attn", rows))
        hidden = linear(f"{name}.feed_forward.0", rows).clamp(min=0)
        return norm(f"{name}.ln2", rows + linear(f"{name}.feed_forward.2", hidden))

    time_of_day = tensors["tod_embedding.weight"][(x[..., 1] * 288 + 0.5).long()]
    day_of_week = tensors["dow_embedding.weight"][x[..., 2].long()]
    adaptive = tensors["adaptive_embedding"].expand(len(x), -1, -1, -1)
    embedded = torch.cat([linear("input_proj", x), time_of_day, day_of_week, adaptive], dim=-1)  # [B, L, N, D]

    forecasts = []
    for window in embedded:
        for i in range(LAYERS):
            sensors = [layer(f"attn_layers_t.{i}", window[:, n]) for n in range(window.shape[1])]
            window = torch.stack(sensors, dim=1)
        for i in range(LAYERS):
            window = torch.stack([layer(f"attn_layers_s.{i}", step) for step in window])
        mixed = window.transpose(0, 1).reshape(-1, L * D)  # [N, L * D]
        forecasts.append(linear("output_proj", mixed).T)
    return torch.stack(forecasts)


def window_pair(dtype):
    """The same two windows as our model takes them and as the authors' does; one of them runs over midnight."""
    g = torch.Generator().manual_seed(7)
    values = torch.randn(2, L, N, generator=g, dtype=torch.float64).to(dtype)
    step = torch.tensor([[6 * 288 + 280], [2 * 288 + 95]]) + torch.arange(L)
    time_of_day, day_of_week = (step % 288).to(dtype) / 288, (step // 288 % 7).to(dtype)
    ours = values, torch.stack([time_of_day, day_of_week / 7], dim=-1)
    calendar = torch.stack([time_of_day, day_of_week], dim=-1).unsqueeze(2).expand(-1, -1, N, -1)
    return ours, torch.cat([values.unsqueeze(-1), calendar], dim=-1)


def loaded(tensors, dtype=torch.float64, **options):
    """Our model in evaluation mode, from the authors' tensors."""
    model = STAEformer(STAEformerConfig(num_features=N, **options)).to(dtype).eval()
    load_authors_state_dict(model, tensors)
    return model


def forecast(tensors, dtype=torch.float64, **options):
    """Our forecast of the two windows."""
    with torch.no_grad():
        return loaded(tensors, dtype, **options)(*window_pair(dtype)[0])


@pytest.mark.parametrize("attention", ["sdpa", "softmax"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_the_forecast_of_an_authors_checkpoint_is_that_of_the_authors_model(attention, dtype, tolerance):
    tensors = {name: tensor.to(dtype) for name, tensor in authors_state_dict().items()}
    expected = authors_forward(tensors, window_pair(dtype)[1])
    assert expected.std() > 0.3
    torch.testing.assert_close(forecast(tensors, dtype, attention=attention), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("attn_layers_t.0.attn.FC_Q", "attn_layers_t.0.attn.FC_K"),
        ("attn_layers_s.1.attn.FC_K", "attn_layers_s.1.attn.FC_V"),
        ("attn_layers_s.2.attn.FC_V", "attn_layers_s.2.attn.out_proj"),
        ("attn_layers_t.1.ln1", "attn_layers_t.1.ln2"),
        ("attn_layers_t.0.feed_forward.0", "attn_layers_s.0.feed_forward.0"),
        ("attn_layers_t.0.ln2", "attn_layers_t.2.ln2"),
        ("attn_layers_s.0.attn.out_proj", "attn_layers_s.1.attn.out_proj"),
    ],
)
@pytest.mark.parametrize("parameter", ["weight", "bias"])
def test_two_tensors_that_change_places_change_the_forecast_as_they_do_the_authors(one, other, parameter):
    tensors = authors_state_dict()
    swapped = dict(tensors)
    first, second = f"{one}.{parameter}", f"{other}.{parameter}"
    swapped[first], swapped[second] = tensors[second], tensors[first]
    got = forecast(swapped)
    assert (got - forecast(tensors)).abs().max() > 1e-4
    torch.testing.assert_close(got, authors_forward(swapped, window_pair(torch.float64)[1]), rtol=1e-10, atol=1e-10)


def test_every_tensor_of_a_checkpoint_takes_part_in_the_forecast():
    tensors = authors_state_dict()
    model = loaded(tensors)
    inputs, timestamps = (part[:1] for part in window_pair(torch.float64)[0])
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        expected = model(inputs, timestamps)
        for name, tensor in tensors.items():
            noise = 0.1 * torch.randn(tensor.shape, generator=g, dtype=tensor.dtype)
            load_authors_state_dict(model, {**tensors, name: tensor + noise})
            difference = (model(inputs, timestamps) - expected).abs().max()
            if name.endswith("FC_K.bias"):
                assert difference < 1e-10, f"softmax does not see {name}"
            else:
                assert difference > 1e-4, f"{name} has no effect"


class TestTensorsThatDoNotFit:
    @staticmethod
    def refused(tensors):
        """The message with which the tensors are refused, by a model that they leave as it was."""
        model = STAEformer(STAEformerConfig(num_features=N))
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(ValueError, match=r"\w") as raised:
            load_authors_state_dict(model, tensors)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        return str(raised.value)

    @pytest.mark.parametrize("name", ["input_proj.weight", "output_proj.bias"])
    def test_a_missing_tensor_is_named(self, name):
        tensors = authors_state_dict()
        del tensors[name]
        message = self.refused(tensors)
        assert f"{name}; left over none" in message

    def test_a_missing_tensor_of_a_layer_is_named(self):
        tensors = authors_state_dict()
        del tensors["attn_layers_s.2.feed_forward.2.bias"]
        assert "2.feed_forward.2.bias; left over none" in self.refused(tensors)

    @pytest.mark.parametrize(
        "name", ["node_embedding", "attn_layers_t.3.ln1.weight", "attn_layers_x.0.ln1.weight", "temporal_proj.weight"]
    )
    def test_a_tensor_left_over_is_named(self, name):
        message = self.refused({**authors_state_dict(), name: torch.zeros(152)})
        assert "missing none" in message
        assert name in message or "temporal_layers.3." in message

    @pytest.mark.parametrize(
        ("name", "shape"),
        [("output_proj.bias", (24,)), ("feed_forward.0.weight", (152, 256)), ("adaptive", (12, 7, 80))],
    )
    def test_a_tensor_of_another_shape_is_named_with_both_shapes(self, name, shape):
        tensors = authors_state_dict()
        full = {"feed_forward.0.weight": "attn_layers_t.1.feed_forward.0.weight", "adaptive": "adaptive_embedding"}
        found = tensors[full.get(name, name)].shape
        tensors[full.get(name, name)] = torch.zeros(shape)
        message = self.refused(tensors)
        assert name in message
        assert str(tuple(found)) in message
        assert str(shape) in message

    def test_a_checkpoint_of_another_network_is_refused(self):
        message = self.refused(authors_state_dict(num_features=N + 1))
        assert "adaptive" in message
        assert "(12, 11, 80)" in message
        assert "(12, 12, 80)" in message


def test_the_example_of_the_readme_runs(tmp_path, monkeypatch):
    code = README.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    tensors = {name: tensor.float() for name, tensor in authors_state_dict(num_features=170).items()}
    torch.save(tensors, tmp_path / "STAEformer-PEMS08.pt")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert names["prediction"].shape == (1, 12, 170)
    day_as_number = names["timestamps"] * torch.tensor([1.0, 7.0])
    calendar = day_as_number.unsqueeze(2).expand(-1, -1, 170, -1)
    expected = authors_forward(tensors, torch.cat([names["inputs"].unsqueeze(-1), calendar], dim=-1))
    torch.testing.assert_close(names["prediction"], expected, rtol=1e-5, atol=1e-5)
