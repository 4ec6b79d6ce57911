"""What a call of the pipeline does with its arguments."""

import io
import json
import logging

import diffusers
import numpy as np
import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from PIL import Image

from faceswap_diffusion.conditioning.landmark_drawing import draw_landmarks
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline, wide_holes
from faceswap_diffusion.pipelines.inputs import fill_hidden, resize
from faceswap_diffusion.pipelines.output import FaceSwapPipelineOutput
from tests.tiny import (
    CROSS_ATTENTION_DIM,
    TINY_SETTINGS,
    tiny_components,
    tiny_inputs,
    tiny_landmarks,
    tiny_mask,
    tiny_picture,
    tiny_pipeline,
    tiny_unet,
    tiny_vae,
)


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def reference_pipe():
    return tiny_pipeline(hidden_fill="reference", masked_latents="mode")


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def largest_difference(one, other):
    return (one - other).abs().max().item()


def encoded_by(pipe: FaceSwapInpaintPipeline, **changes) -> torch.Tensor:
    """What the autoencoder is shown of the target in a call."""
    seen = []
    handle = pipe.vae.encoder.register_forward_pre_hook(lambda _module, arguments: seen.append(arguments[0]))
    pipe(**{**tiny_inputs(), **changes})
    handle.remove()
    (pixels,) = seen
    return pixels


class TestDrawnLandmarks:
    def test_they_stand_where_the_face_is_hidden_and_nowhere_else(self):
        plain = encoded_by(tiny_pipeline())
        drawn = encoded_by(tiny_pipeline(hidden_fill="landmarks"))
        mask = torch.from_numpy(np.array(tiny_mask(), np.float32) / 255)
        wanted = plain + mask * draw_landmarks(tiny_landmarks(), 32, 32)
        torch.testing.assert_close(drawn, wanted, atol=1e-6, rtol=0)
        assert largest_difference(plain * (mask == 0), drawn * (mask == 0)) == 0

    def test_without_landmarks_the_hidden_part_is_grey(self):
        pipe = tiny_pipeline(hidden_fill="landmarks")
        assert torch.equal(encoded_by(pipe, landmarks=None), encoded_by(tiny_pipeline(), landmarks=None))

    def test_each_face_of_a_batch_gets_its_own(self):
        pipe = tiny_pipeline(hidden_fill="landmarks")
        landmarks = tiny_landmarks(2)
        together = encoded_by(pipe, landmarks=landmarks, generator=generators(0, 1))
        alone = [encoded_by(pipe, landmarks=landmarks[index]) for index in range(2)]
        torch.testing.assert_close(together, torch.cat(alone))

    def test_a_shape_cannot_be_lent_without_knowing_shapes(self):
        with pytest.raises(ValueError, match=r"geometry_share is 0\.5, but the conditioner knows no geometry"):
            tiny_pipeline(geometry_share=0.5)

    def test_the_setting_is_saved(self, tmp_path):
        tiny_pipeline(hidden_fill="landmarks").save_pretrained(tmp_path)
        assert FaceSwapInpaintPipeline.from_pretrained(tmp_path).config["hidden_fill"] == "landmarks"

    @pytest.mark.parametrize(
        ("draw_landmarks", "hidden_fill", "pixel"),
        [
            (True, "landmarks", [0.5467529, 0.4057577, 0.2390511]),
            (False, "grey", [0.5467322, 0.4065888, 0.2410213]),
        ],
    )
    def test_checkpoints_of_before_are_read_and_swap_as_they_did(
        self, tmp_path, caplog, monkeypatch, draw_landmarks, hidden_fill, pixel
    ):
        """`pixel` is what the code of then painted."""
        monkeypatch.setattr(logging.getLogger("faceswap_diffusion"), "propagate", True)
        expected = tiny_pipeline(hidden_fill=hidden_fill)
        expected.save_pretrained(tmp_path)
        index = json.loads((tmp_path / "model_index.json").read_text())
        assert "draw_landmarks" not in index
        del index["hidden_fill"], index["default_strength"]
        (tmp_path / "model_index.json").write_text(json.dumps({**index, "draw_landmarks": draw_landmarks}))
        loaded = FaceSwapInpaintPipeline.from_pretrained(tmp_path)
        assert loaded.config["hidden_fill"] == hidden_fill
        images = loaded(**tiny_inputs()).images
        assert torch.equal(images, expected(**tiny_inputs()).images)
        assert images[0, :, 16, 16].tolist() == pytest.approx(pixel, abs=1e-5)
        assert "draw_landmarks" not in caplog.text
        loaded.save_pretrained(tmp_path / "again")
        assert "draw_landmarks" not in (tmp_path / "again" / "model_index.json").read_text()
        chosen = FaceSwapInpaintPipeline.from_pretrained(tmp_path, hidden_fill="reference")
        assert chosen.config["hidden_fill"] == "reference"


def soft_half(size: int = 32) -> torch.Tensor:
    """A reference's mask (size, size): white on the left, black on the right, grey between."""
    return (torch.arange(size, 0, -1) / size * 4 - 1.5).clamp(0, 1).expand(size, size)


class TestReference:
    def test_it_stands_where_the_face_is_hidden_and_it_covers_and_around_it_is_smooth(self, reference_pipe):
        mask, coverage = reference_pipe.preprocess_mask(tiny_mask(), None, 32, 32), soft_half()[None, None]
        target, reference = (reference_pipe.preprocess(tiny_picture(seed), 32, 32) for seed in (1, 5))
        seen = encoded_by(reference_pipe, reference_image=tiny_picture(5), reference_mask_image=soft_half())
        shown = (mask == 0).expand_as(seen)
        covered, hole = (((mask == 1) & (coverage == value)).expand_as(seen) for value in (1, 0))
        assert min(shown.sum(), covered.sum(), hole.sum()) > 100
        torch.testing.assert_close(seen[shown], target[shown], atol=1e-6, rtol=0)
        torch.testing.assert_close(seen[covered], reference[covered], atol=1e-6, rtol=0)
        assert seen[hole].std() < 0.5 * reference[hole].std()  # no noise, unlike both pictures
        assert torch.equal(seen, fill_hidden(target, mask, reference, coverage))

    def test_another_size_is_resized_like_the_target(self, reference_pipe):
        seen = encoded_by(reference_pipe, reference_image=tiny_picture(5, 64), reference_mask_image=soft_half(64))
        small = reference_pipe.preprocess(tiny_picture(5, 64), 32, 32) / 2 + 0.5
        small_mask = reference_pipe.preprocess_mask(soft_half(64), None, 32, 32)
        expected = encoded_by(reference_pipe, reference_image=small, reference_mask_image=small_mask)
        torch.testing.assert_close(seen, expected, atol=1e-5, rtol=0)

    def test_without_a_mask_it_covers_everything(self, reference_pipe):
        seen = encoded_by(reference_pipe, reference_image=tiny_picture(5))
        white = torch.ones(32, 32)
        assert torch.equal(
            seen, encoded_by(reference_pipe, reference_image=tiny_picture(5), reference_mask_image=white)
        )
        reference = reference_pipe.preprocess(tiny_picture(5), 32, 32)
        torch.testing.assert_close(seen[..., 9:23, 9:23], reference[..., 9:23, 9:23], atol=1e-6, rtol=0)

    @pytest.mark.parametrize("strength", [1.0, 0.5])
    def test_alone_or_in_a_batch_the_same_face_comes_out(self, strength):
        pipe = tiny_pipeline(hidden_fill="reference")
        references, masks = [tiny_picture(seed) for seed in (5, 6)], [soft_half(), soft_half().T]
        inputs = {**tiny_inputs(), "strength": strength}
        together = {"reference_image": references, "reference_mask_image": masks, "generator": generators(7, 8)}
        batch = pipe(**{**inputs, **together}).images
        for index in range(2):
            single = {"reference_image": references[index], "reference_mask_image": masks[index]}
            alone = pipe(**{**inputs, **single, "generator": generators(7 + index)}).images
            assert largest_difference(alone[0], batch[index]) < 1e-4
        assert largest_difference(batch[0], batch[1]) > 1e-3

    def test_without_one_the_landmarks_are_drawn_and_that_is_said(self, reference_pipe, caplog, monkeypatch):
        monkeypatch.setattr(logging.getLogger("faceswap_diffusion"), "propagate", True)
        drawn = tiny_pipeline(hidden_fill="landmarks", masked_latents="mode")
        assert torch.equal(reference_pipe(**tiny_inputs()).images, drawn(**tiny_inputs()).images)
        assert "no `reference_image`: the hidden part of the target shows the landmarks instead" in caplog.text
        reference_pipe(**{**tiny_inputs(), "landmarks": None})
        assert "no `reference_image`: the hidden part of the target is grey instead" in caplog.text
        caplog.clear()
        reference_pipe(**tiny_inputs(), reference_image=tiny_picture(5))
        reference_pipe(**tiny_inputs(), masked_image_latents=torch.zeros(1, 4, 16, 16))
        assert caplog.text == ""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"reference_mask_image": tiny_mask()}, "`reference_mask_image` says .*: pass `reference_image`"),
            (
                {"reference_image": tiny_picture(5), "reference_mask_image": tiny_mask(16)},
                r"`reference_mask_image` is \[\(16, 16\)\] pixels .* but `reference_image` is \[\(32, 32\)\]",
            ),
            (
                {"reference_image": [tiny_picture(5)] * 2, "image": [tiny_picture(1)] * 3},
                "`reference_image` is a batch",
            ),
            ({"reference_image": torch.full((3, 32, 32), 2.0)}, "`reference_image` reaches from 2 to 2"),
        ],
    )
    def test_what_does_not_fit_is_refused_in_one_line(self, reference_pipe, arguments, message):
        with pytest.raises(ValueError, match=message) as error:
            reference_pipe(**{**tiny_inputs(), **arguments})
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("hidden_fill", ["grey", "landmarks"])
    def test_a_checkpoint_that_shows_none_refuses_it(self, hidden_fill):
        pipe = tiny_pipeline(hidden_fill=hidden_fill)
        with pytest.raises(ValueError, match=f"is 'reference', here it is '{hidden_fill}': leave it out, or take"):
            pipe(**tiny_inputs(), reference_image=tiny_picture(5))

    def test_an_unknown_fill_is_refused(self):
        with pytest.raises(ValueError, match="hidden_fill is 'black', but has to be one of"):
            tiny_pipeline(hidden_fill="black")


class TestStrength:
    def inputs(self, **changes):
        return {**tiny_inputs(), "reference_image": tiny_picture(5), "num_inference_steps": 5, **changes}

    def test_at_1_it_is_a_swap_from_noise(self, reference_pipe):
        expected = reference_pipe(**self.inputs()).images
        assert torch.equal(reference_pipe(**self.inputs(), strength=1.0).images, expected)
        plain = tiny_pipeline()
        assert torch.equal(plain(**tiny_inputs(), strength=1.0).images, plain(**tiny_inputs()).images)

    @torch.no_grad()
    def test_below_it_starts_from_the_noised_masked_image_and_takes_the_last_steps(self, reference_pipe):
        noise = torch.randn(1, 4, 16, 16, generator=generators(0)[0])
        masked_image = encoded_by(reference_pipe, **self.inputs())
        masked = (
            reference_pipe.vae.encode(masked_image).latent_dist.mode() * reference_pipe.vae.config["scaling_factor"]
        )
        inputs = tiny_inputs()
        mask = resize(reference_pipe.preprocess_mask(tiny_mask(), None, 32, 32), 16, 16)
        context = reference_pipe.encode_condition(
            inputs["image"], inputs["source_image"], inputs["source_mask_image"], inputs["landmarks"]
        )
        scheduler = tiny_pipeline().scheduler
        scheduler.set_timesteps(5)
        assert scheduler.timesteps.tolist() == [801, 601, 401, 201, 1]
        alpha = scheduler.alphas_cumprod[401]
        latents = alpha.sqrt() * masked + (1 - alpha).sqrt() * noise
        for timestep in (401, 201, 1):
            noise_pred = reference_pipe.unet(torch.cat([latents, masked, 1 - mask], dim=1), timestep, context).sample
            latents = scheduler.step(noise_pred, timestep, latents).prev_sample
        settings = {"strength": 0.6, "guidance_scale": 1.0, "output_type": "latent"}
        for start in ({"latents": noise}, {"generator": generators(0)}):
            got = reference_pipe(**self.inputs(**settings, **start)).images
            torch.testing.assert_close(got, latents, atol=1e-5, rtol=1e-5)
            assert reference_pipe.num_timesteps == 3

    def test_ready_latents_are_the_reference_as_well(self, reference_pipe):
        expected = reference_pipe(**self.inputs(strength=0.6)).images
        masked = reference_pipe.vae.encode(encoded_by(reference_pipe, **self.inputs())).latent_dist.mode()
        masked = masked * reference_pipe.vae.config["scaling_factor"]
        got = reference_pipe(
            **{**tiny_inputs(), "num_inference_steps": 5}, strength=0.6, masked_image_latents=masked
        ).images
        assert largest_difference(got, expected) < 1e-6

    def test_the_config_has_a_default_for_calls_with_a_reference(self):
        pipe = tiny_pipeline(hidden_fill="reference", default_strength=0.4)
        expected = tiny_pipeline(hidden_fill="reference")(**self.inputs(strength=0.4)).images
        assert torch.equal(pipe(**self.inputs()).images, expected)
        pipe(**tiny_inputs(), num_inference_steps=5)
        assert pipe.num_timesteps == 5

    def test_of_very_few_steps_one_is_left(self):
        pipe = tiny_pipeline(hidden_fill="reference", default_strength=0.4)
        whole = pipe(**self.inputs(num_inference_steps=1, strength=1.0)).images
        assert torch.equal(pipe(**self.inputs(num_inference_steps=1)).images, whole)

    def test_holes_are_latents_that_are_hidden_and_mostly_uncovered(self, reference_pipe):
        mask, coverage = torch.ones(1, 1, 32, 32), torch.ones(1, 1, 32, 32)  # 2 x 2 pixels a latent
        coverage[0, 0, :2, :2] = 0  # all of a latent
        coverage[0, 0, 4, 4] = 0  # a quarter
        coverage[0, 0, 8, 8:10] = 0  # half
        coverage[0, 0, 16:18, 16:18] = mask[0, 0, 16:18, 16:18] = 0  # uncovered, and not hidden
        holes = reference_pipe.find_holes(mask, coverage, 0.5, torch.device("cpu"))
        assert holes[0, 0].nonzero().tolist() == [[0, 0], [4, 4]]
        assert reference_pipe.find_holes(mask, coverage, 1.0, torch.device("cpu")) is None
        assert reference_pipe.find_holes(mask, None, 0.5, torch.device("cpu")) is None

    def test_holes_are_wide_where_they_hold_a_square(self):
        holes = torch.zeros(2, 1, 12, 12, dtype=torch.bool)
        holes[0, 0, 1:3, 1:9] = True  # a strip, too narrow
        holes[0, 0, 5:8, 4:7] = holes[0, 0, 6, 7:10] = True  # a square, and a narrow part of the same hole
        wide = wide_holes(holes)
        assert wide[0, 0].nonzero().tolist() == [[y, x] for y in (5, 6, 7) for x in (4, 5, 6)]
        assert not wide[1].any()
        holes[0, 0, 5:8, 4:7] = False
        assert wide_holes(holes) is None
        holes[1, 0, 11, 3:6] = True  # at the edge of the picture, beyond which it goes on
        assert wide_holes(holes)[1, 0].nonzero().tolist() == [[11, 3], [11, 4], [11, 5]]
        assert wide_holes(None) is None

    def test_narrow_holes_wait_with_the_rest(self, reference_pipe):
        """They start from the colours around them, so that no step is taken for them alone."""
        coverage = np.ones((32, 32), np.float32)
        for end, timesteps in ((14, [801, 601, 401, 201, 1]), (12, [201, 1])):
            coverage[8:14, 8:end], seen = 0, []
            reference_pipe(
                **self.inputs(reference_mask_image=coverage, mask_image=None, strength=0.4, output_type="latent"),
                callback_on_step_end=lambda pipe, index, timestep, tensors, seen=seen: seen.append(int(timestep)),
            )
            assert seen == timesteps
            coverage[:] = 1

    def test_holes_go_the_whole_way_from_noise_while_the_rest_waits(self, reference_pipe):
        coverage = np.ones((32, 32), np.float32)
        coverage[8:16, 8:16] = 0
        noise = torch.randn(1, 4, 16, 16, generator=generators(0)[0])
        inputs = self.inputs(reference_mask_image=coverage, mask_image=None, latents=noise, output_type="latent")
        seen = []

        def look(pipe, index, timestep, tensors):
            seen.append((int(timestep), tensors["latents"].clone(), tensors["masked_image_latents"]))
            return tensors

        names = ["latents", "masked_image_latents"]
        reference_pipe(**inputs, strength=0.4, callback_on_step_end=look, callback_on_step_end_tensor_inputs=names)
        assert [timestep for timestep, _, _ in seen] == [801, 601, 401, 201, 1]
        scheduler = tiny_pipeline().scheduler
        alpha, masked = scheduler.alphas_cumprod[401], seen[2][2]
        waiting = alpha.sqrt() * masked + (1 - alpha).sqrt() * noise
        held = reference_pipe.hold_covered(
            seen[1][1],
            reference_pipe.find_holes(
                torch.ones(1, 1, 32, 32), torch.from_numpy(coverage)[None, None], 0.4, noise.device
            ),
            noise,
            masked,
            torch.tensor(401),
        )
        torch.testing.assert_close(held[0, :, 10:], waiting[0, :, 10:])
        torch.testing.assert_close(held[0, :, 4:8, 4:8], seen[1][1][0, :, 4:8, 4:8])

    def test_ready_latents_have_holes_where_the_mask_of_their_reference_says(self):
        pipe = tiny_pipeline(hidden_fill="reference", masked_latents="mode")
        coverage = np.ones((32, 32), np.float32)
        coverage[8:16, 8:16] = 0
        noise = torch.randn(1, 4, 16, 16, generator=generators(0)[0])
        given = self.inputs(reference_mask_image=coverage, strength=0.4, latents=noise, output_type="latent")
        with torch.no_grad():
            ready = pipe.encode_vae_image(encoded_by(pipe, **given), None)
        ready_inputs = {**given, "reference_image": None, "masked_image_latents": ready}
        assert torch.equal(pipe(**ready_inputs).images, pipe(**given).images)
        assert not torch.equal(pipe(**{**ready_inputs, "reference_mask_image": None}).images, pipe(**given).images)

    def test_the_less_of_the_way_is_gone_the_more_stays_of_the_reference(self, reference_pipe):
        masked = reference_pipe.vae.encode(encoded_by(reference_pipe, **self.inputs())).latent_dist.mode()
        masked = masked * reference_pipe.vae.config["scaling_factor"]
        far, near = (
            (reference_pipe(**self.inputs(strength=strength, output_type="latent")).images - masked).abs().mean()
            for strength in (0.8, 0.2)
        )
        assert near < far

    def test_the_progress_bar_counts_the_steps_that_are_taken(self):
        pipe, screen = tiny_pipeline(hidden_fill="reference"), io.StringIO()
        pipe.set_progress_bar_config(file=screen)
        pipe(**self.inputs(strength=0.6))
        assert "3/3" in screen.getvalue()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"strength": 0.0}, "`strength` is 0.0: a number above 0 and at most 1 is needed"),
            ({"strength": 1.5}, "`strength` is 1.5: a number above 0 and at most 1 is needed"),
            ({"strength": float("nan")}, "`strength` is nan: a number above 0"),
            ({"strength": 0.1}, "`num_inference_steps` is 5 and `strength` 0.1, which leaves no step: their product"),
            ({"strength": 0.6, "reference_image": None}, "`strength` is 0.6, but below 1 a swap starts from the ref"),
        ],
    )
    def test_what_does_not_fit_is_refused_in_one_line(self, reference_pipe, changes, message):
        with pytest.raises(ValueError, match=message) as error:
            reference_pipe(**self.inputs(**changes))
        assert "\n" not in str(error.value)

    def test_a_checkpoint_that_shows_no_reference_has_nothing_to_start_from(self):
        with pytest.raises(ValueError, match="to a checkpoint whose hidden_fill is 'reference'"):
            tiny_pipeline()(**tiny_inputs(), strength=0.5, masked_image_latents=torch.zeros(1, 4, 16, 16))


def test_an_autoencoder_may_have_other_channels_and_another_factor():
    components = {**tiny_components(), "vae": tiny_vae(latent_channels=8, num_halvings=3)}
    components["unet"] = tiny_unet(latent_channels=8, crop_size=8)  # 4 latents of 8 pixels
    pipe = FaceSwapInpaintPipeline(**components, **{**TINY_SETTINGS, "hidden_fill": "reference"})
    inputs = {**tiny_inputs(), "reference_image": tiny_picture(5), "num_inference_steps": 4}
    for strength in (1.0, 0.5):
        assert pipe(**inputs, strength=strength).images.shape == (1, 3, 32, 32)
        assert pipe(**{**inputs, "output_type": "latent"}, strength=strength).images.shape == (1, 8, 4, 4)
    with pytest.raises(ValueError, match="use multiples of 8"):
        pipe(**inputs, height=36)


class TestOutputs:
    def test_one_swap_is_one_picture_in_range(self, pipe):
        images = pipe(**tiny_inputs()).images
        assert images.shape == (1, 3, 32, 32)
        assert 0 <= images.min() < images.max() <= 1
        assert images.std() > 0.01

    def test_output_types_show_the_same_picture(self, pipe):
        inputs = tiny_inputs()
        results = {
            kind: pipe(**{**inputs, "generator": generators(0), "output_type": kind}).images
            for kind in ("pil", "np", "pt", "latent")
        }
        assert isinstance(results["pil"][0], Image.Image)
        assert np.array_equal(results["np"], results["pt"].permute(0, 2, 3, 1).numpy())
        assert np.array_equal(np.asarray(results["pil"][0]), np.round(results["np"][0] * 255).astype(np.uint8))
        decoded = pipe.vae.decode(results["latent"] / pipe.vae.config["scaling_factor"]).sample
        assert largest_difference((decoded / 2 + 0.5).clamp(0, 1), results["pt"]) < 1e-5

    def test_tuple_and_dataclass_hold_the_same(self, pipe):
        output = pipe(**tiny_inputs())
        images, explicit = pipe(**tiny_inputs(), return_dict=False)
        assert explicit is None  # nobody looked
        assert torch.equal(images, output.images)
        assert isinstance(output, FaceSwapPipelineOutput)

    def test_the_generator_decides_the_result(self, pipe):
        first = pipe(**tiny_inputs(seed=0)).images
        assert torch.equal(first, pipe(**tiny_inputs(seed=0)).images)
        assert largest_difference(first, pipe(**tiny_inputs(seed=1)).images) > 1e-3

    def test_no_component_is_changed_by_a_call(self):
        pipe = tiny_pipeline()
        before = {
            name: {key: value.clone() for key, value in part.state_dict().items()}
            for name, part in pipe.components.items()
            if isinstance(part, torch.nn.Module)
        }
        config = dict(pipe.config)
        pipe(**tiny_inputs())
        for name, state in before.items():
            after = getattr(pipe, name).state_dict()
            assert all(torch.equal(value, after[key]) for key, value in state.items())
        assert dict(pipe.config) == config

    def test_the_progress_bar_counts_the_steps(self):
        pipe, screen = tiny_pipeline(), io.StringIO()
        pipe.set_progress_bar_config(file=screen)
        pipe(**tiny_inputs(), num_inference_steps=3)
        assert "3/3" in screen.getvalue()


class TestInputs:
    def test_pil_arrays_and_tensors_give_the_same(self, pipe):
        inputs = tiny_inputs()
        pictures = ("image", "source_image", "mask_image", "source_mask_image")
        expected = pipe(**inputs).images
        arrays = {name: np.asarray(inputs[name]) for name in pictures}
        tensors = {
            name: torch.from_numpy(array / np.float32(255)).movedim(-1, 0 if array.ndim == 3 else -1)
            for name, array in arrays.items()
        }
        lists = {name: [inputs[name]] for name in pictures}
        for same in (arrays, tensors, lists):
            result = pipe(**{**inputs, **same, "generator": generators(0)}).images
            assert largest_difference(result, expected) < 1e-6

    def test_alone_or_in_a_batch_the_same_face_comes_out(self, pipe):
        faces = [tiny_picture(seed) for seed in (1, 2, 3)]
        sources = [tiny_picture(seed) for seed in (4, 5, 6)]
        masks = [tiny_mask()] * 3
        landmarks = tiny_landmarks(3)
        batch = pipe(faces, sources, masks, masks, landmarks, generator=generators(7, 8, 9), eta=1.0, output_type="pt")
        for index in range(3):
            alone = pipe(
                faces[index],
                sources[index],
                masks[index],
                masks[index],
                landmarks[index],
                generator=generators(7 + index),
                eta=1.0,
                output_type="pt",
            )
            assert largest_difference(alone.images[0], batch.images[index]) < 1e-4

    def test_one_source_goes_to_many_targets_and_many_sources_to_one_target(self, pipe):
        one, many = tiny_picture(1), [tiny_picture(2), tiny_picture(3)]
        noise = torch.randn(2, 4, 16, 16, generator=generators(0)[0])
        settings = {"output_type": "pt", "mask_image": tiny_mask(), "latents": noise}
        pipe_mode = tiny_pipeline(masked_latents="mode")
        to_many = pipe_mode(many, one, **settings).images
        assert largest_difference(to_many, pipe_mode(many, [one, one], **settings).images) < 1e-5
        from_many = pipe_mode(one, many, **settings).images
        assert largest_difference(from_many, pipe_mode([one, one], many, **settings).images) < 1e-5
        assert largest_difference(to_many, from_many) > 1e-3

    def test_results_of_one_face_lie_side_by_side(self, pipe):
        images = pipe(
            image=[tiny_picture(1), tiny_picture(2)],
            source_image=tiny_picture(3),
            mask_image=tiny_mask(),
            num_images_per_prompt=2,
            generator=generators(5, 5, 5, 5),
            output_type="pt",
        ).images
        assert len(images) == 4
        assert largest_difference(images[0], images[1]) < 1e-5
        assert largest_difference(images[2], images[3]) < 1e-5
        assert largest_difference(images[1], images[2]) > 1e-3

    def test_each_input_matters(self, pipe):
        expected = pipe(**tiny_inputs()).images
        others = {
            "image": tiny_picture(9),
            "source_image": tiny_picture(9),
            "mask_image": None,
            "source_mask_image": None,
            "landmarks": None,
        }
        for name, other in others.items():
            changed = pipe(**{**tiny_inputs(), name: other}).images
            assert largest_difference(changed, expected) > 1e-7, name

    def test_embeddings_stand_for_the_pictures_they_come_from(self, pipe):
        inputs = tiny_inputs()
        expected = pipe(**inputs).images
        sources = {"source_image": inputs.pop("source_image"), "source_mask_image": inputs.pop("source_mask_image")}
        embeds = {
            "identity_embeds": pipe.encode_identity(*sources.values()),
            "source_clip_embeds": pipe.encode_clip(*sources.values()),
            "target_clip_embeds": pipe.encode_clip(inputs["image"]),
        }
        assert torch.equal(pipe(**{**inputs, **embeds, "generator": generators(0)}).images, expected)
        context = pipe.encode_condition(inputs["image"], **sources, landmarks=inputs["landmarks"])
        assert torch.equal(
            pipe(**{**inputs, "condition_embeds": context, "generator": generators(0)}).images, expected
        )

    def test_masked_image_latents_stand_for_the_target(self):
        pipe, inputs = tiny_pipeline(masked_latents="mode"), tiny_inputs()
        expected = pipe(**inputs).images
        pixels = pipe.preprocess(inputs["image"], 32, 32)
        mask = pipe.preprocess_mask(inputs["mask_image"], inputs["image"], 32, 32)
        masked = pipe.vae.encode(pixels * (1 - mask)).latent_dist.mode() * pipe.vae.config["scaling_factor"]
        inputs |= {"target_clip_embeds": pipe.encode_clip(inputs.pop("image")), "masked_image_latents": masked}
        assert largest_difference(pipe(**{**inputs, "generator": generators(0)}).images, expected) < 1e-6

    def test_pictures_of_another_size_are_brought_to_the_crop(self, pipe):
        picture, mask = tiny_picture(1, 96), tiny_mask(96)
        pixels, small_mask = pipe.preprocess(picture, 32, 32), pipe.preprocess_mask(mask, picture, 32, 32)
        assert pixels.shape == (1, 3, 32, 32)
        expected = np.asarray(picture.reduce(3), np.float32) / 127.5 - 1
        assert np.abs(pixels[0].permute(1, 2, 0).numpy() - expected).mean() < 0.25  # an area mean, up to the filter
        assert 0 < small_mask.mean() < 1

    def test_height_and_width_rule_the_output(self, pipe):
        images = pipe(tiny_picture(1), tiny_picture(2), tiny_mask(), height=24, width=40, output_type="pt").images
        assert images.shape == (1, 3, 24, 40)

    def test_defaults_of_steps_and_guidance_come_from_the_config(self):
        pipe = tiny_pipeline(default_num_inference_steps=3, default_guidance_scale=2.5)
        pipe(**tiny_inputs())
        assert (pipe.num_timesteps, pipe.guidance_scale) == (3, 2.5)


class TestMask:
    def encoded(self, pipe, mask):
        """What the UNet is given of the target and its mask, in REFace's order."""
        seen = []
        hook = pipe.unet.register_forward_pre_hook(lambda module, args: seen.append(args[0][:1]))
        pipe(**{**tiny_inputs(), "mask_image": mask}, num_inference_steps=1)
        hook.remove()
        return seen[0][:, 4:8], seen[0][:, 8:]

    def test_a_soft_mask_stays_soft(self):
        pipe = tiny_pipeline(masked_latents="mode")
        masked_latents, keep_mask = self.encoded(pipe, torch.full((32, 32), 0.25))
        assert torch.equal(keep_mask, torch.full((1, 1, 16, 16), 0.75))
        pixels = pipe.preprocess(tiny_inputs()["image"], 32, 32)
        expected = pipe.vae.encode(pixels * 0.75).latent_dist.mode() * pipe.vae.config["scaling_factor"]
        assert largest_difference(masked_latents, expected) < 1e-5

    def test_without_a_mask_everything_is_repainted(self):
        pipe = tiny_pipeline(masked_latents="mode")
        masked_latents, keep_mask = self.encoded(pipe, None)
        assert not keep_mask.any()
        expected = pipe.vae.encode(torch.zeros(1, 3, 32, 32)).latent_dist.mode() * pipe.vae.config["scaling_factor"]
        assert largest_difference(masked_latents, expected) < 1e-5

    def test_white_is_repainted(self):
        mask = torch.zeros(32, 32)
        mask[:16] = 1
        _, keep_mask = self.encoded(tiny_pipeline(), mask)
        assert not keep_mask[0, 0, :8].any()
        assert keep_mask[0, 0, 8:].all()

    def test_sampled_masked_latents_depend_on_the_generator(self):
        for masked_latents, moves in (("sample", True), ("mode", False)):
            pipe = tiny_pipeline(masked_latents=masked_latents)
            noise = torch.zeros(1, 4, 16, 16)
            one, other = (
                pipe(**{**tiny_inputs(), "generator": generators(seed)}, latents=noise).images for seed in (1, 2)
            )
            assert (largest_difference(one, other) > 0) is moves


class TestGuidance:
    def arguments(self, pipe):
        generator = generators(0)[0]
        draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
        return {
            "latents": draw(1, 4, 16, 16),
            "timestep": torch.tensor(501),
            "condition_embeds": draw(1, 1, CROSS_ATTENTION_DIM),
            "negative_condition_embeds": draw(1, 1, CROSS_ATTENTION_DIM),
            "mask_latents": torch.rand(1, 1, 16, 16, generator=generator),
            "masked_image_latents": draw(1, 4, 16, 16),
        }

    @torch.no_grad()
    def test_two_contexts_are_combined_as_published(self, pipe):
        arguments = self.arguments(pipe)
        pipe._guidance_scale = 3.5
        guided = pipe.predict_noise(**arguments)
        unet_input = torch.cat(
            [arguments["latents"], arguments["masked_image_latents"], 1 - arguments["mask_latents"]], dim=1
        )
        with_condition, without = (
            pipe.unet(unet_input, 501, encoder_hidden_states=arguments[name]).sample
            for name in ("condition_embeds", "negative_condition_embeds")
        )
        assert largest_difference(guided, without + 3.5 * (with_condition - without)) < 1e-4
        pipe._guidance_scale = 1.0
        assert largest_difference(pipe.predict_noise(**arguments), with_condition) < 1e-5

    def test_the_unconditional_context_is_the_learned_one(self, pipe):
        expected = pipe(**tiny_inputs(), guidance_scale=3.0).images
        learned = pipe.conditioner.unconditional(1).detach()
        assert torch.equal(
            pipe(**tiny_inputs(), guidance_scale=3.0, negative_condition_embeds=learned).images, expected
        )
        other = pipe(**tiny_inputs(), guidance_scale=3.0, negative_condition_embeds=learned + 5).images
        assert largest_difference(other, expected) > 1e-4

    def test_without_guidance_the_unet_runs_once(self, pipe):
        sizes = []
        hook = pipe.unet.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
        for scale in (1.0, 1.5):
            pipe(**tiny_inputs(), guidance_scale=scale, num_inference_steps=1)
        hook.remove()
        assert sizes == [1, 2]

    @pytest.mark.parametrize(
        ("start", "end", "expected"),
        [(0.0, 1.0, [2, 2, 2, 2]), (0.5, 1.0, [1, 1, 2, 2]), (0.0, 0.5, [2, 2, 1, 1]), (0.3, 0.8, [1, 1, 2, 1])],
    )
    def test_it_may_be_limited_to_some_steps(self, pipe, start, end, expected):
        sizes = []
        hook = pipe.unet.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
        limits = {"guidance_start": start, "guidance_end": end}
        images = pipe(**tiny_inputs(), num_inference_steps=4, guidance_scale=3.0, **limits).images
        hook.remove()
        assert sizes == expected

        def scale_of_next_step(pipeline, step, timestep, tensors):
            pipeline._guidance_scale = 3.0 if [*expected, 1][step + 1] == 2 else 1.0

        scale = 3.0 if expected[0] == 2 else 1.0
        by_hand = pipe(
            **tiny_inputs(), num_inference_steps=4, guidance_scale=scale, callback_on_step_end=scale_of_next_step
        )
        assert torch.equal(images, by_hand.images)

    @pytest.mark.parametrize(("start", "end"), [(-0.1, 1.0), (0.5, 0.5), (0.8, 0.2), (0.0, 1.1)])
    def test_shares_of_the_steps_that_leave_none_are_refused(self, pipe, start, end):
        with pytest.raises(ValueError, match=r"`guidance_start`, `guidance_end` are .* \[0, 1\]"):
            pipe(**tiny_inputs(), guidance_start=start, guidance_end=end)


class TestCallback:
    def test_it_gets_the_tensors_it_asked_for_and_may_change_them(self, pipe):
        shapes = {}

        def callback(pipeline, step, timestep, tensors):
            shapes.update({name: tuple(value.shape) for name, value in tensors.items()})
            return {"latents": torch.zeros_like(tensors["latents"])}

        latents = pipe(
            **{**tiny_inputs(), "output_type": "latent"},
            callback_on_step_end=callback,
            callback_on_step_end_tensor_inputs=pipe._callback_tensor_inputs,
        ).images
        assert not latents.any()
        assert shapes == {
            "latents": (1, 4, 16, 16),
            "condition_embeds": (1, 1, CROSS_ATTENTION_DIM),
            "negative_condition_embeds": (1, 1, CROSS_ATTENTION_DIM),
            "mask_latents": (1, 1, 16, 16),
            "masked_image_latents": (1, 4, 16, 16),
        }

    def test_it_may_switch_guidance_off(self, pipe):
        sizes = []
        hook = pipe.unet.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))

        def callback(pipeline, step, timestep, tensors):
            pipeline._guidance_scale = 1.0
            return tensors

        pipe(**tiny_inputs(), callback_on_step_end=callback, num_inference_steps=3)
        hook.remove()
        assert sizes == [2, 1, 1]

    def test_it_may_interrupt(self, pipe):
        steps = []

        def callback(pipeline, step, timestep, tensors):
            steps.append(step)
            pipeline._interrupt = step == 1
            return tensors

        pipe(**tiny_inputs(), callback_on_step_end=callback, num_inference_steps=5)
        assert steps == [0, 1]

    def test_what_it_returns_besides_known_tensors_counts_for_nothing(self, pipe):
        expected = pipe(**tiny_inputs()).images
        answers = {
            "nothing": lambda tensors: None,
            "an empty dictionary": lambda tensors: {},
            "what it got": lambda tensors: tensors,
            "more than that": lambda tensors: {**tensors, "prompt_embeds": torch.ones(1), "note": "seen"},
        }
        for answer, changed in answers.items():
            callback = lambda pipeline, step, timestep, tensors, changed=changed: changed(tensors)  # noqa: E731
            assert torch.equal(pipe(**tiny_inputs(), callback_on_step_end=callback).images, expected), answer

    def test_a_known_tensor_is_taken_though_it_was_not_asked_for(self, pipe):
        def callback(pipeline, step, timestep, tensors):
            return {"masked_image_latents": torch.zeros(1, 4, 16, 16), "unknown": 1}

        changed = pipe(**tiny_inputs(), callback_on_step_end=callback, num_inference_steps=3).images
        assert largest_difference(changed, pipe(**tiny_inputs(), num_inference_steps=3).images) > 1e-4

    def test_without_guidance_its_context_may_be_asked_for_and_returned(self):
        bare, seen = tiny_pipeline(), []
        context = torch.zeros(1, 1, CROSS_ATTENTION_DIM)
        bare.conditioner = None

        def callback(pipeline, step, timestep, tensors):
            seen.append(tensors["negative_condition_embeds"])
            return tensors

        bare(
            tiny_picture(1),
            condition_embeds=context,
            guidance_scale=1.0,
            callback_on_step_end=callback,
            callback_on_step_end_tensor_inputs=bare._callback_tensor_inputs,
        )
        assert seen == [None, None]


class TestChosenSteps:
    """`timesteps` and `sigmas`, as Diffusers' pipelines take them."""

    @staticmethod
    def with_scheduler(kind):
        components = tiny_components()
        components["scheduler"] = kind.from_config(components["scheduler"].config)
        pipe = FaceSwapInpaintPipeline(**components, **{**TINY_SETTINGS, "hidden_fill": "reference"})
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @staticmethod
    def visited(pipe, **arguments) -> list[float]:
        seen = []

        def callback(pipeline, step, timestep, tensors):
            seen.append(float(timestep))

        pipe(**tiny_inputs(), callback_on_step_end=callback, **arguments)
        return seen

    def test_they_are_visited_in_place_of_the_scheduler_s_own(self):
        pipe = self.with_scheduler(EulerDiscreteScheduler)
        assert self.visited(pipe, timesteps=[900, 500, 100]) == [900, 500, 100]
        assert self.visited(pipe, timesteps=[900, 500, 100], num_inference_steps=7) == [900, 500, 100]

    def test_noise_levels_may_be_given_instead(self):
        pipe = self.with_scheduler(EulerDiscreteScheduler)
        sigmas = [10.0, 2.0, 0.5, 0.0]  # this scheduler wants the end as well
        assert self.visited(pipe, sigmas=sigmas) == sorted(pipe.scheduler.timesteps.tolist(), reverse=True)
        assert pipe.num_timesteps == 3
        assert pipe.scheduler.sigmas.tolist()[:4] == pytest.approx(sigmas)

    def test_those_of_the_scheduler_give_the_same_picture(self):
        pipe = self.with_scheduler(DPMSolverMultistepScheduler)
        expected = pipe(**tiny_inputs(), num_inference_steps=4).images
        timesteps = pipe.scheduler.timesteps.tolist()
        assert torch.equal(pipe(**tiny_inputs(), timesteps=timesteps).images, expected)

    def test_below_strength_1_the_last_of_them_are_taken(self):
        pipe = self.with_scheduler(EulerDiscreteScheduler)
        reference = {"reference_image": tiny_picture(5), "strength": 0.5}
        assert self.visited(pipe, timesteps=[900, 700, 400, 100], **reference) == [400, 100]

    def test_what_a_scheduler_does_not_take_is_refused(self, pipe):
        with pytest.raises(ValueError, match="`timesteps` cannot be chosen with DDIMScheduler: leave it out"):
            pipe(**tiny_inputs(), timesteps=[900, 100])
        with pytest.raises(ValueError, match="`timesteps` and `sigmas` both say which steps to take"):
            pipe(**tiny_inputs(), timesteps=[900, 100], sigmas=[1.0, 0.5])


class TestSchedulers:
    @pytest.mark.parametrize("name", [scheduler.name for scheduler in KarrasDiffusionSchedulers])
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of some schedulers, about NumPy
    def test_any_of_its_kind_works(self, name):
        if name == "DPMSolverSDEScheduler":
            pytest.importorskip("torchsde")
        components = tiny_components()
        components["scheduler"] = getattr(diffusers, name).from_config(components["scheduler"].config)
        pipe = FaceSwapInpaintPipeline(**components, **{**TINY_SETTINGS, "hidden_fill": "reference"})
        pipe.set_progress_bar_config(disable=True)
        settings = {**tiny_inputs(), "output_type": "latent", "num_inference_steps": 4}
        reference = {"reference_image": tiny_picture(5), "strength": 0.5}
        whole, half = (pipe(**settings, **more).images for more in ({}, reference))
        assert whole.shape == half.shape == (1, 4, 16, 16)
        assert whole.isfinite().all()
        assert half.isfinite().all()

    def test_eta_is_for_those_that_take_it(self, pipe):
        still, lively = (pipe(**tiny_inputs(), eta=eta, num_inference_steps=4).images for eta in (0.0, 1.0))
        assert largest_difference(still, lively) > 1e-3
        assert pipe.prepare_extra_step_kwargs(None, 1.0) == {"generator": None, "eta": 1.0}
        components = tiny_components()
        components["scheduler"] = UniPCMultistepScheduler.from_config(components["scheduler"].config)
        assert FaceSwapInpaintPipeline(**components, **TINY_SETTINGS).prepare_extra_step_kwargs(None, 1.0) == {}


class TestIdentity:
    def test_by_default_the_identity_network_sees_the_whole_crop(self, pipe):
        picture = tiny_picture(4)
        embeds = pipe.encode_identity(picture, tiny_mask())
        pixels = pipe.preprocess(picture, 32, 32)
        assert embeds.shape == (1, 128)
        assert torch.equal(embeds, pipe.conditioner.encode_identity(pixels))

    def test_the_config_can_hide_what_the_mask_hides(self):
        pipe = tiny_pipeline(mask_identity=True, identity_size=48)
        black = Image.new("L", (32, 32), 0)
        assert torch.equal(pipe.encode_identity(tiny_picture(4), black), pipe.encode_identity(tiny_picture(5), black))
        one, other = (pipe.encode_identity(tiny_picture(seed), tiny_mask()) for seed in (4, 5))
        assert largest_difference(one, other) > 1e-3

    def test_the_config_rules_the_size_of_the_view(self):
        sizes = []
        for config in ({}, {"identity_size": 48}, {"identity_size": 48, "mask_identity": True}):
            pipe = tiny_pipeline(**config)
            network = pipe.conditioner
            pipe.conditioner.encode_identity = lambda view, network=network: (
                sizes.append(tuple(view.shape)) or type(network).encode_identity(network, view)
            )
            pipe.encode_identity(tiny_picture(4), tiny_mask())
        assert sizes == [(1, 3, 32, 32), (1, 3, 48, 48), (1, 3, 48, 48)]


class TestLandmarks:
    def test_they_are_scaled_to_the_crop_the_weights_know(self):
        pipe = tiny_pipeline(crop_size=32, landmark_scale=0.5)
        landmarks = torch.tensor([12.0, 40.0]).expand(68, 2)
        assert pipe.prepare_landmarks(landmarks, height=64, width=32)[0, 0].tolist() == [6.0, 10.0]
        assert pipe.prepare_landmarks(landmarks.numpy(), height=64, width=32).shape == (1, 68, 2)

    def test_none_and_zeros_mean_that_none_were_found(self, pipe):
        none = pipe(**{**tiny_inputs(), "landmarks": None}).images
        assert torch.equal(none, pipe(**{**tiny_inputs(), "landmarks": torch.zeros(1, 68, 2)}).images)

    @pytest.mark.parametrize(
        ("landmarks", "message"),
        [
            (torch.zeros(1, 67, 2), r"`landmarks` has shape \(1, 67, 2\): \(B, 68, 2\) is needed"),
            (torch.full((68, 2), 41.0), "`landmarks` lie outside the crop of 32 x 32 pixels"),
            (torch.full((68, 2), -9.0), "`landmarks` lie outside the crop"),
            (torch.full((68, 2), float("nan")), "`landmarks` lie outside the crop"),
        ],
    )
    def test_what_cannot_be_landmarks_is_refused(self, pipe, landmarks, message):
        with pytest.raises(ValueError, match=message):
            pipe(**{**tiny_inputs(), "landmarks": landmarks})

    def test_the_outline_of_a_cut_off_face_may_lie_outside(self, pipe):
        pipe(**{**tiny_inputs(), "landmarks": torch.full((68, 2), 39.0)})


class TestOptionalComponents:
    def test_saved_without_them_it_does_with_their_embeddings_what_it_did_with_them(self, pipe, tmp_path):
        """Diffusers' `test_save_load_optional_components`, with what the optional parts would have made."""
        inputs = tiny_inputs()
        expected = pipe(**inputs).images
        pictures = [inputs.pop(name) for name in ("source_image", "source_mask_image")]
        context = pipe.encode_condition(inputs["image"], *pictures, inputs.pop("landmarks"))
        bare = tiny_pipeline()
        for name in bare._optional_components:
            setattr(bare, name, None)
        bare.save_pretrained(tmp_path)
        loaded = FaceSwapInpaintPipeline.from_pretrained(tmp_path)
        assert all(getattr(loaded, name) is None for name in loaded._optional_components)
        embeds = {"condition_embeds": context, "negative_condition_embeds": pipe.conditioner.unconditional(1)}
        result = loaded(**{**inputs, "generator": generators(0)[0]}, **embeds).images
        assert torch.equal(result, expected)

    @pytest.mark.parametrize("missing", ["image_encoder", "feature_extractor"])
    def test_without_an_image_encoder_its_embeddings_are_passed(self, pipe, tmp_path, missing):
        inputs = tiny_inputs()
        expected = pipe(**inputs).images
        embeds = {
            "source_clip_embeds": pipe.encode_clip(inputs["source_image"], inputs["source_mask_image"]),
            "target_clip_embeds": pipe.encode_clip(inputs["image"]),
        }
        bare = tiny_pipeline()
        setattr(bare, missing, None)
        bare.save_pretrained(tmp_path)
        loaded = FaceSwapInpaintPipeline.from_pretrained(tmp_path)
        assert torch.equal(loaded(**{**inputs, "generator": generators(0)[0]}, **embeds).images, expected)

    def test_a_ready_context_needs_neither_encoder_nor_conditioner(self, pipe):
        bare = tiny_pipeline()
        for name in ("image_encoder", "feature_extractor", "conditioner"):
            setattr(bare, name, None)
        inputs = tiny_inputs()
        context = pipe.encode_condition(
            inputs["image"], inputs["source_image"], inputs["source_mask_image"], inputs["landmarks"]
        )
        expected = pipe(**inputs).images
        given = {name: inputs[name] for name in ("image", "mask_image", "output_type")}
        result = bare(
            **given,
            condition_embeds=context,
            negative_condition_embeds=pipe.conditioner.unconditional(1),
            generator=generators(0),
        )
        assert torch.equal(result.images, expected)
        bare(**given, condition_embeds=context, guidance_scale=1.0)

    @pytest.mark.parametrize(
        ("missing", "arguments", "message"),
        [
            ("conditioner", {}, "without a conditioner guidance above 1 needs `negative_condition_embeds`"),
            ("conditioner", {"guidance_scale": 1.0}, "without a conditioner pass `condition_embeds`"),
            ("image_encoder", {}, "this pipeline has no image encoder: pass `source_clip_embeds`"),
            ("feature_extractor", {}, "this pipeline has no feature extractor"),
        ],
    )
    def test_what_then_has_to_be_passed_is_said(self, missing, arguments, message):
        pipe = tiny_pipeline()
        setattr(pipe, missing, None)
        with pytest.raises(ValueError, match=message):
            pipe(**tiny_inputs(), **arguments)


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"height": 33}, "`height`, `width` are 33, 32: use multiples of 2"),
            ({"num_inference_steps": 0}, "`num_inference_steps` is 0: at least 1 is needed"),
            ({"output_type": "jpg"}, "`output_type` is 'jpg'"),
            ({"callback_on_step_end_tensor_inputs": ["mask"]}, r"has \['mask'\]: choose of"),
            ({"image": None}, "pass the target as `image`, or as `masked_image_latents`"),
            ({"source_image": None}, "pass `source_image`, or `identity_embeds` in its place"),
            ({"mask_image": tiny_mask(16)}, r"`mask_image` is \[\(16, 16\)\] pixels .* but `image` is \[\(32, 32\)\]"),
            ({"source_mask_image": tiny_mask(16)}, "`source_mask_image` is"),
            ({"latents": torch.zeros(1, 4, 8, 8)}, r"`latents` has shape \(1, 4, 8, 8\): \(1, 4, 16, 16\) is needed"),
            ({"generator": generators(1, 2)}, "`generator` is a list of 2: one for each of 1 is needed"),
            ({"image": [tiny_picture()] * 3, "mask_image": [tiny_mask()] * 2}, "`mask_image` is a batch of 2, others"),
            ({"image": torch.full((3, 32, 32), -1.0)}, "`image` reaches from -1 to -1"),
        ],
    )
    def test_a_wrong_argument_is_refused_in_one_line(self, pipe, arguments, message):
        with pytest.raises(ValueError, match=message) as error:
            pipe(**{**tiny_inputs(), **arguments})
        assert "\n" not in str(error.value)

    def test_a_unet_of_another_kind_is_refused(self):
        components = tiny_components()
        components["unet"] = tiny_unet()
        components["unet"].register_to_config(in_channels=4)
        with pytest.raises(ValueError, match="the UNet takes 4 channels, but latents, masked latents and mask make 9"):
            FaceSwapInpaintPipeline(**components, **TINY_SETTINGS)

    def test_an_unknown_kind_of_masked_latents_is_refused(self):
        with pytest.raises(ValueError, match="masked_latents is 'mean', but has to be one of"):
            tiny_pipeline(masked_latents="mean")


class TestPrecision:
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.02), (torch.bfloat16, 0.1)])
    def test_half_precision_stays_near_single(self, pipe, dtype, tolerance):
        noise = torch.randn(1, 4, 16, 16, generator=generators(0)[0])
        half, single = tiny_pipeline(masked_latents="mode").to(dtype), tiny_pipeline(masked_latents="mode")
        assert {part.dtype for part in half.components.values() if isinstance(part, torch.nn.Module)} == {dtype}
        got, wanted = (part(**tiny_inputs(), latents=noise).images.float() for part in (half, single))
        assert (got - wanted).abs().mean() < tolerance

    def test_components_may_differ_in_precision(self):
        pipe = tiny_pipeline()
        pipe.unet.to(torch.float16)
        pipe.conditioner.to(torch.bfloat16)
        assert pipe(**tiny_inputs()).images.isfinite().all()


class OwnTensorsAway(ModelHook):
    """Keeps a module's own tensors away except during its forward, as sequential offloading does on a GPU."""

    execution_device = "cpu"

    def init_hook(self, module):
        self.stores = [(store, dict(store)) for store in (module._parameters, module._buffers)]
        self.post_forward(module, None)
        return module

    def pre_forward(self, module, *args, **kwargs):
        for store, tensors in self.stores:
            store.update(tensors)
        return args, kwargs

    def post_forward(self, module, output):
        for store, tensors in self.stores:
            store.update({name: None if tensor is None else tensor.to("meta") for name, tensor in tensors.items()})
        return output


class TestOffloading:
    def test_no_weight_is_touched_outside_its_modules_forward(self, pipe):
        expected = pipe(**tiny_inputs()).images
        away = tiny_pipeline()
        for part in away.components.values():
            for module in part.modules() if isinstance(part, torch.nn.Module) else ():
                add_hook_to_module(module, OwnTensorsAway())
        assert away.unet.conv_in.weight.device.type == "meta"
        assert torch.equal(away(**tiny_inputs()).images, expected)

    def test_encoding_an_identity_fetches_the_conditioner(self):
        """It is no forward of the conditioner's, but a conditioner that waits on the CPU is needed on the GPU."""

        class Fetch(ModelHook):
            def pre_forward(self, module, *args, **kwargs):
                fetched.append(module)
                return args, kwargs

        pipe, fetched = tiny_pipeline(), []
        add_hook_to_module(pipe.conditioner, Fetch())
        pipe.encode_identity(tiny_picture(1))
        assert fetched == [pipe.conditioner]

    def test_the_order_names_every_network(self, pipe):
        networks = {name for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
        assert set(pipe.model_cpu_offload_seq.split("->")) == networks
