"""The backbone that ELinFormer and STAEformer share: sizes, time slots, axes, attentions, the host's configs."""

import json
from datetime import datetime

import numpy as np
import pytest
import torch
from basicts.configs import BasicTSForecastingConfig

from baselines.STAEformer import STAEformer, STAEformerConfig
from ealinformer.attention import LinformerAttention, PerformerAttention, build_attention, softmax_attention
from ealinformer.data.timestamps import calendar_features
from ealinformer.models import BackboneConfig, ELinFormer, ELinFormerConfig, SpatioTemporalTransformer
from ealinformer.models.embedding import SpatioTemporalEmbedding
from ealinformer.models.lean import Normed

SMALL = {
    "input_len": 6,
    "output_len": 3,
    "num_features": 5,
    "input_hidden_size": 4,
    "tid_hidden_size": 4,
    "diw_hidden_size": 4,
    "adaptive_hidden_size": 8,
    "intermediate_size": 16,
    "n_heads": 2,
    "num_layers": 2,
    "dropout": 0.0,
}
MODELS = [(ELinFormer, ELinFormerConfig), (STAEformer, STAEformerConfig)]


def values(x):
    """What a layer takes or gives, whichever form its activations have."""
    if isinstance(x, Normed):
        return x.normed if x.affine is None else x.normed * x.affine[0] + x.affine[1]
    return x


def batch(*, steps_per_day=288, dtype=torch.float32):
    """Two windows of the small sizes, 12 hours apart."""
    g = torch.Generator().manual_seed(1)
    inputs = torch.randn(2, 6, 5, generator=g, dtype=dtype)
    step = torch.tensor([[0], [steps_per_day // 2]]) + torch.arange(6)
    return inputs, torch.stack([step.to(dtype) / steps_per_day, torch.full_like(step, 3, dtype=dtype) / 7], dim=-1)


class TestConfig:
    @pytest.mark.parametrize(
        "field",
        [
            "input_len",
            "output_len",
            "num_features",
            "num_time_in_day",
            "num_day_in_week",
            "input_hidden_size",
            "intermediate_size",
            "n_heads",
            "num_layers",
        ],
    )
    @pytest.mark.parametrize("value", [0, -3, 2.0, "12", None])
    def test_a_size_that_is_no_positive_whole_number_is_named(self, field, value):
        with pytest.raises(ValueError, match=rf"^{field} has to be a positive whole number, got {value!r}$"):
            ELinFormer(ELinFormerConfig(**{**SMALL, field: value}))

    @pytest.mark.parametrize("field", ["tid_hidden_size", "diw_hidden_size", "adaptive_hidden_size"])
    @pytest.mark.parametrize("value", [-1, 4.0, "24", None])
    def test_a_table_width_that_is_negative_or_no_whole_number_is_named(self, field, value):
        with pytest.raises(ValueError, match=rf"^{field} has to be 0 or a positive whole number, got {value!r}$"):
            STAEformer(STAEformerConfig(**{**SMALL, field: value}))

    @pytest.mark.parametrize("value", [-0.1, 1.0, 1.5, float("nan")])
    def test_a_dropout_rate_outside_0_to_1_is_named(self, value):
        with pytest.raises(ValueError, match=rf"^dropout .*got {value!r}$"):
            ELinFormer(ELinFormerConfig(**{**SMALL, "dropout": value}))

    def test_heads_that_do_not_divide_the_width_are_named_with_the_width(self):
        with pytest.raises(ValueError, match="n_heads has to divide the width 20, got 3"):
            ELinFormer(ELinFormerConfig(**{**SMALL, "n_heads": 3}))

    def test_the_number_of_sensors_has_to_be_given(self):
        with pytest.raises(ValueError, match="num_features"):
            ELinFormer(ELinFormerConfig())

    @pytest.mark.parametrize(("option", "value"), [("attention", "flash"), ("entropy", "shannon")])
    def test_unknown_names_are_refused(self, option, value):
        with pytest.raises(ValueError, match=rf"{option} is one of .*got '{value}'"):
            ELinFormer(ELinFormerConfig(**SMALL, **{option: value}))

    @pytest.mark.parametrize(
        ("attention", "key", "value"),
        [
            ("entropy_equal", "eps", -1.0),
            ("linformer", "linformer_rank", 0),
            ("linformer", "linformer_rank", "64"),
            ("performer", "performer_features", 0),
            ("performer", "performer_features", 2.5),
        ],
    )
    def test_an_option_that_cannot_be_is_named_by_its_key(self, attention, key, value):
        with pytest.raises(ValueError, match=rf"^{key} has to be .*got {value!r}$"):
            ELinFormer(ELinFormerConfig(**SMALL, attention=attention, **{key: value}))

    @pytest.mark.parametrize(
        ("attention", "key", "value"),
        [
            ("softmax", "entropy", "gaussian"),
            ("inline", "eps", 0.1),
            ("entropy_equal", "linformer_rank", 8),
            ("linformer", "performer_features", 8),
        ],
    )
    def test_an_option_of_another_attention_has_to_keep_its_default(self, attention, key, value):
        with pytest.raises(ValueError, match=rf"^{key} has no effect on the attention '{attention}', got {value!r}$"):
            ELinFormer(ELinFormerConfig(**SMALL, attention=attention, **{key: value}))

    @pytest.mark.parametrize("attention", ["sdpa ", "elu", "entropy_equal", None])
    def test_staeformer_has_softmax_alone(self, attention):
        with pytest.raises(ValueError, match=rf"STAEformer's attention is sdpa or softmax, got {attention!r}"):
            STAEformer(STAEformerConfig(**SMALL, attention=attention))

    @pytest.mark.parametrize(
        ("width", "parameter"),
        [
            ("tid_hidden_size", "time_in_day.weight"),
            ("diw_hidden_size", "day_in_week.weight"),
            ("adaptive_hidden_size", "adaptive"),
        ],
    )
    def test_width_0_leaves_a_part_of_the_embedding_out(self, width, parameter):
        whole = ELinFormer(ELinFormerConfig(**SMALL))
        part = ELinFormer(ELinFormerConfig(**{**SMALL, width: 0}))
        gone = whole.state_dict().keys() - part.state_dict().keys()
        assert gone == {f"embedding.{parameter}"}
        assert part.output_proj.in_features == 6 * (20 - SMALL[width])
        assert part(*batch()).shape == (2, 3, 5)


class TestTimeSlots:
    @staticmethod
    def looked_up(timestamps, steps_per_day):
        """Rows of the time-of-day and the day-of-week table that timestamps `[T, 2]` look up."""
        config = BackboneConfig(
            input_len=len(timestamps),
            num_features=1,
            num_time_in_day=steps_per_day,
            input_hidden_size=1,
            tid_hidden_size=1,
            diw_hidden_size=1,
            adaptive_hidden_size=0,
        )
        embedding = SpatioTemporalEmbedding(config)
        with torch.no_grad():
            embedding.time_in_day.weight.copy_(torch.arange(steps_per_day)[:, None])
            embedding.day_in_week.weight.copy_(torch.arange(7)[:, None])
            embedded = embedding(torch.zeros(1, len(timestamps), 1), torch.as_tensor(timestamps)[None])
        assert embedded.shape == (1, 1, len(timestamps), 3)
        return embedded[0, 0, :, 1].long(), embedded[0, 0, :, 2].long()

    @pytest.mark.parametrize("interval_minutes", [1, 5, 15, 60])
    @pytest.mark.parametrize("source", ["prepared", "float32 division", "rounded from float64"])
    def test_every_step_of_a_week_looks_up_its_own_slot(self, interval_minutes, source):
        steps_per_day = 1440 // interval_minutes
        step = np.arange(7 * steps_per_day)
        slot, day = step % steps_per_day, step // steps_per_day
        if source == "prepared":
            timestamps = calendar_features(datetime(2018, 1, 1), interval_minutes, len(step))  # a Monday
        elif source == "float32 division":
            shares = [slot.astype(np.float32) / np.float32(steps_per_day), day.astype(np.float32) / np.float32(7)]
            timestamps = np.stack(shares, axis=1)
        else:
            timestamps = np.stack([slot / steps_per_day, day / 7], axis=1).astype(np.float32)
        assert timestamps.dtype == np.float32
        day_slot, week_day = self.looked_up(timestamps, steps_per_day)
        np.testing.assert_array_equal(day_slot, slot)
        np.testing.assert_array_equal(week_day, day)

    @pytest.mark.parametrize("offset_minutes", [-2, -1, 1, 2])
    def test_a_clock_off_the_grid_looks_up_the_slot_it_lies_in(self, offset_minutes):
        minute = (5 * np.arange(288) + offset_minutes) % 1440
        timestamps = np.stack([minute / 1440, np.zeros(288)], axis=1).astype(np.float32)
        day_slot, week_day = self.looked_up(timestamps, 288)
        np.testing.assert_array_equal(day_slot, minute // 5)
        assert week_day.eq(0).all()

    def test_the_last_instant_of_the_week_wraps_to_the_first_rows(self):
        almost_one = np.nextafter(np.float32(1), np.float32(0))
        day_slot, week_day = self.looked_up(np.array([[almost_one, almost_one]]), 288)
        assert day_slot.tolist() == [0]
        assert week_day.tolist() == [0]

    @pytest.mark.parametrize("interval_minutes", [5, 60])
    def test_a_clock_half_an_interval_off_the_grid_keeps_its_slots_apart(self, interval_minutes):
        steps_per_day = 1440 // interval_minutes
        timestamps = np.stack([(np.arange(steps_per_day) + 0.5) / steps_per_day, np.zeros(steps_per_day)], axis=1)
        day_slot, _ = self.looked_up(timestamps.astype(np.float32), steps_per_day)
        assert len(day_slot.unique()) == steps_per_day


@pytest.mark.parametrize(("model_class", "config_class"), MODELS)
class TestAxes:
    def test_temporal_layers_mix_the_steps_of_one_sensor_only(self, model_class, config_class):
        model = model_class(config_class(**SMALL)).eval()
        model.spatial_layers = torch.nn.ModuleList()
        inputs, timestamps = batch()
        seen = []
        model.temporal_layers[0].register_forward_hook(
            lambda _, args, output: seen.append((values(args[0]), values(output)))
        )
        expected = model(inputs, timestamps)
        inputs[0, 4, 3] += 1
        changed = model(inputs, timestamps) != expected  # [B, H, N]
        assert changed[0, :, 3].all()
        changed[0, :, 3] = False
        assert not changed.any()

        (before, after), (moved_before, moved_after) = seen
        at_input = (before != moved_before).any(-1)  # [B, N, L]
        assert at_input.nonzero().tolist() == [[0, 3, 4]]
        at_output = (after != moved_after).any(-1)
        assert at_output[0, 3].all()
        assert at_output.sum() == SMALL["input_len"]

    def test_spatial_layers_mix_the_sensors_of_one_step_only(self, model_class, config_class):
        model = model_class(config_class(**SMALL)).eval()
        model.temporal_layers = torch.nn.ModuleList()
        inputs, timestamps = batch()
        seen = []
        for layer in model.spatial_layers:
            layer.register_forward_hook(lambda _, args, output: seen.append((values(args[0]), values(output))))
        expected = model(inputs, timestamps)
        inputs[0, 4, 3] += 1
        assert (model(inputs, timestamps) != expected)[0].all()

        first, last, moved_first, moved_last = seen
        at_input = (first[0] != moved_first[0]).any(-1)  # [B, L, N]
        assert at_input.nonzero().tolist() == [[0, 4, 3]]
        at_output = (last[1] != moved_last[1]).any(-1)
        assert at_output[0, 4].all()
        assert at_output.sum() == SMALL["num_features"]

    def test_temporal_layers_come_before_spatial_ones_as_many_of_each(self, model_class, config_class):
        model = model_class(config_class(**{**SMALL, "num_layers": 3})).eval()
        order = []
        for kind in ("temporal_layers", "spatial_layers"):
            for i, layer in enumerate(getattr(model, kind)):
                layer.register_forward_hook(lambda *_, label=(kind, i): order.append(label))
        model(*batch())
        assert order == [("temporal_layers", i) for i in range(3)] + [("spatial_layers", i) for i in range(3)]


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_both_branches_of_a_layer_pass_dropout_before_they_are_added(rate):
    model = ELinFormer(ELinFormerConfig(**{**SMALL, "dropout": rate, "layers": "plain"}))
    layer = model.spatial_layers[1]
    assert layer.dropout.p == rate
    x = torch.randn(3, 5, 20)
    dropped = []

    class DropEverything(torch.nn.Module):
        def forward(self, branch):
            dropped.append(branch)
            return torch.zeros_like(branch)

    layer.dropout = DropEverything()
    # What is left is the residual path, normed after each of the two branches.
    torch.testing.assert_close(layer(x), layer.feed_forward_norm(layer.attention_norm(x)))
    assert torch.equal(dropped[0], layer.attention(x))
    assert torch.equal(dropped[1], layer.feed_forward(layer.attention_norm(x)))


class TestAttentions:
    @staticmethod
    def forecast(model_class, config, weights):
        model = model_class(config).double().eval()
        model.load_state_dict(weights)
        with torch.no_grad():
            return model(*batch(dtype=torch.float64))

    @staticmethod
    def weights():
        """Weights that are large enough for softmax to be far from the mean of its values."""
        torch.manual_seed(0)
        weights = STAEformer(STAEformerConfig(**SMALL)).double().state_dict()
        return {name: 3 * tensor if "_proj.weight" in name else tensor for name, tensor in weights.items()}

    def test_explicit_and_fused_softmax_agree(self):
        weights = self.weights()
        fused = self.forecast(STAEformer, STAEformerConfig(**SMALL, attention="sdpa"), weights)
        explicit = self.forecast(STAEformer, STAEformerConfig(**SMALL, attention="softmax"), weights)
        torch.testing.assert_close(fused, explicit, rtol=1e-10, atol=1e-10)

    def test_explicit_and_fused_softmax_agree_in_float32(self):
        weights = {name: tensor.float() for name, tensor in self.weights().items()}
        forecasts = []
        for attention in ("sdpa", "softmax"):
            model = STAEformer(STAEformerConfig(**SMALL, attention=attention)).eval()
            model.load_state_dict(weights)
            forecasts.append(model(*batch()))
        torch.testing.assert_close(*forecasts, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("attention", ["softmax", "sdpa"])
    def test_elinformer_on_softmax_is_staeformer(self, attention):
        weights = self.weights()
        elinformer = self.forecast(ELinFormer, ELinFormerConfig(**SMALL, attention=attention), weights)
        staeformer = self.forecast(STAEformer, STAEformerConfig(**SMALL, attention=attention), weights)
        assert torch.equal(elinformer, staeformer)

    def test_entropy_equal_attention_gives_another_forecast_for_each_estimator_and_than_softmax(self):
        weights = self.weights()
        taylor = self.forecast(ELinFormer, ELinFormerConfig(**SMALL, entropy="taylor"), weights)
        gaussian = self.forecast(ELinFormer, ELinFormerConfig(**SMALL, entropy="gaussian"), weights)
        softmax = self.forecast(STAEformer, STAEformerConfig(**SMALL), weights)
        for one, other in ((taylor, gaussian), (taylor, softmax), (gaussian, softmax)):
            assert (one - other).abs().max() > 1e-3

    def test_the_defaults_are_the_papers_attention_and_fused_softmax(self):
        weights = self.weights()
        named = ELinFormerConfig(**SMALL, attention="entropy_equal", entropy="taylor", eps=1e-8)
        assert torch.equal(
            self.forecast(ELinFormer, ELinFormerConfig(**SMALL), weights), self.forecast(ELinFormer, named, weights)
        )
        assert torch.equal(
            self.forecast(STAEformer, STAEformerConfig(**SMALL), weights),
            self.forecast(STAEformer, STAEformerConfig(**SMALL, attention="sdpa"), weights),
        )

    def test_a_large_eps_reaches_the_attention_and_flattens_it(self):
        weights = self.weights()
        flat = self.forecast(ELinFormer, ELinFormerConfig(**SMALL, eps=1e12), weights)
        model = SpatioTemporalTransformer(
            BackboneConfig(**SMALL), lambda num_keys: lambda q, k, v, **_: v.mean(-2, keepdim=True).expand_as(q)
        )
        model.double().eval().load_state_dict(weights)
        torch.testing.assert_close(flat, model(*batch(dtype=torch.float64)), rtol=1e-7, atol=1e-7)

    def test_any_attention_function_fits_the_backbone(self):
        torch.manual_seed(0)
        model = SpatioTemporalTransformer(BackboneConfig(**SMALL), lambda num_keys: softmax_attention).double().eval()
        expected = self.forecast(STAEformer, STAEformerConfig(**SMALL, attention="softmax"), model.state_dict())
        assert torch.equal(model(*batch(dtype=torch.float64)), expected)

    def test_each_layer_has_an_attention_of_its_own_for_the_keys_of_its_axis(self):
        config = ELinFormerConfig(**SMALL, attention="linformer", linformer_rank=3)
        model = ELinFormer(config)
        for layers, num_keys in ((model.temporal_layers, 6), (model.spatial_layers, 5)):
            attentions = [layer.attention.attention for layer in layers]
            assert all(isinstance(a, LinformerAttention) and (a.num_keys, a.rank) == (num_keys, 3) for a in attentions)
            assert not torch.equal(attentions[0].key_projection, attentions[1].key_projection)

    def test_options_reach_the_attention_under_the_keys_of_the_config(self):
        model = ELinFormer(ELinFormerConfig(**SMALL, attention="performer", performer_features=7))
        attention = model.spatial_layers[0].attention.attention
        assert isinstance(attention, PerformerAttention)
        assert (attention.head_size, attention.num_features) == (10, 7)
        by_default = ELinFormer(ELinFormerConfig(**SMALL, attention="performer")).spatial_layers[0].attention.attention
        assert by_default.num_features == PerformerAttention(10).num_features

    @pytest.mark.parametrize("name", ["inline", "elu", "identity"])
    def test_a_name_in_the_config_is_the_attention_of_all_layers(self, name):
        weights = self.weights()
        by_name = self.forecast(ELinFormer, ELinFormerConfig(**SMALL, attention=name), weights)
        asked = []

        def factory(num_keys):
            asked.append(num_keys)
            return build_attention(name, head_size=10)

        model = SpatioTemporalTransformer(BackboneConfig(**SMALL), factory).double().eval()
        model.load_state_dict(weights)
        assert torch.equal(model(*batch(dtype=torch.float64)), by_name)
        assert asked == [6, 6, 5, 5]


@pytest.mark.parametrize(("model_class", "config_class"), MODELS)
class TestHostConfig:
    @staticmethod
    def host_config(model_class, config, **settings):
        return BasicTSForecastingConfig(
            model=model_class, model_config=config, dataset_name="PEMS08", use_timestamps=True, **settings
        )

    def test_the_host_writes_model_and_config_as_json(self, model_class, config_class):
        host = self.host_config(model_class, config_class(**SMALL), input_len=6, output_len=3)
        written = json.loads(str(host))
        assert written["model"] == {"name": model_class.__name__, "module": model_class.__module__}
        assert {key: written["model_config"][key] for key in SMALL} == SMALL
        assert written["model_config"]["attention"] == config_class().attention

    def test_window_lengths_of_the_host_reach_the_model(self, model_class, config_class):
        host = self.host_config(model_class, config_class(**SMALL), input_len=12, output_len=24)
        assert host.model(host.model_config).output_proj.weight.shape == (24, 12 * 20)

    def test_the_hosts_run_key_follows_the_attention(self, model_class, config_class):
        keys = {
            self.host_config(model_class, config_class(**SMALL, attention=a), input_len=6, output_len=3).md5
            for a in ("softmax", "sdpa")
        }
        assert len(keys) == 2

    def test_a_config_that_the_host_saved_builds_the_model_again(self, model_class, config_class, tmp_path):
        host = self.host_config(model_class, config_class(**SMALL), input_len=6, output_len=3)
        (tmp_path / "cfg.json").write_text(str(host), encoding="utf-8")
        read = BasicTSForecastingConfig.from_json(str(tmp_path / "cfg.json"))
        assert read.model is model_class
        again = read.model(read.model_config)
        again.load_state_dict(host.model(host.model_config).state_dict())


@pytest.mark.parametrize("attention", ["linformer", "performer", "inline"])
class TestHostConfigOfOtherAttentions:
    @staticmethod
    def read_back(config, folder):
        host = BasicTSForecastingConfig(
            model=ELinFormer, model_config=config, dataset_name="PEMS08", use_timestamps=True, input_len=6, output_len=3
        )
        (folder / "cfg.json").write_text(str(host), encoding="utf-8")
        return BasicTSForecastingConfig.from_json(str(folder / "cfg.json")).model_config

    def test_a_saved_config_builds_the_same_model(self, attention, tmp_path):
        own = {"linformer": {"linformer_rank": 2}, "performer": {"performer_features": 9}}.get(attention, {})
        config = ELinFormerConfig(**SMALL, attention=attention, **own)
        model, again = ELinFormer(config), ELinFormer(self.read_back(config, tmp_path))
        again.load_state_dict(model.state_dict())
        model.eval(), again.eval()
        assert torch.equal(model(*batch()), again(*batch()))

    def test_a_config_saved_before_an_option_came_has_its_default(self, attention, tmp_path):
        read = self.read_back(ELinFormerConfig(**SMALL, attention=attention), tmp_path)
        for key in ("linformer_rank", "performer_features", "eps"):
            del read[key]
        model = ELinFormer(ELinFormerConfig(**SMALL, attention=attention))
        ELinFormer(read).load_state_dict(model.state_dict())
