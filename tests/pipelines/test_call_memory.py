"""What the steps of a call share: computed once, and never older than what it depends on."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from peft import LoraConfig

from faceswap_diffusion.pipelines.call_memory import CallMemory
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from tests.pipelines.test_faceswap_inpaint import OwnTensorsAway
from tests.pipelines.test_single_token import EXACT, cross_attentions, relative_difference
from tests.tiny import tiny_inputs, tiny_pipeline

STEPS = 4
LATENT = {"num_inference_steps": STEPS, "guidance_scale": 3.0, "output_type": "latent"}


def run(pipe: FaceSwapInpaintPipeline, **arguments: Any) -> torch.Tensor:
    return pipe(**{**tiny_inputs(), **LATENT, **arguments}).images


def run_plainly(pipe: FaceSwapInpaintPipeline, **arguments: Any) -> torch.Tensor:
    """The same with diffusers' own attention; a hook makes each step compute its own."""
    pipe.unet.set_attn_processor(AttnProcessor2_0())
    add_hook_to_module(pipe.unet.conv_in, ModelHook())
    return run(pipe, **arguments)


def calls_of(layers: list[Any], call: Callable[[], Any]) -> list[int]:
    """How often each layer is called."""
    counts = [0] * len(layers)

    def count(number: int) -> None:
        counts[number] += 1

    handles = [layer.register_forward_hook(lambda *_, n=n: count(n)) for n, layer in enumerate(layers)]
    call()
    for handle in handles:
        handle.remove()
    return counts


def shared_layers(pipe: FaceSwapInpaintPipeline) -> list[Any]:
    return [pipe.unet.time_embedding.linear_1, *(attention.to_v for attention in cross_attentions(pipe.unet))]


@pytest.fixture
def pipe() -> FaceSwapInpaintPipeline:
    return tiny_pipeline()


def test_all_steps_share_one_computation(pipe: FaceSwapInpaintPipeline):
    layers = shared_layers(pipe)
    images = []
    assert calls_of(layers, lambda: images.append(run(pipe))) == [1] * len(layers)
    assert relative_difference(images[0], run_plainly(pipe)) < 10 * EXACT  # of 4 steps


def test_steps_with_and_without_guidance_have_a_vector_each(pipe: FaceSwapInpaintPipeline):
    layers, images = shared_layers(pipe), []
    half = {"guidance_start": 0.5}
    assert calls_of(layers, lambda: images.append(run(pipe, **half))) == [1] + [2] * (len(layers) - 1)
    assert relative_difference(images[0], run_plainly(pipe, **half)) < 10 * EXACT


def test_a_scheduler_of_second_order_finds_the_embedding_of_each_pass(pipe: FaceSwapInpaintPipeline):
    pipe.scheduler = HeunDiscreteScheduler.from_config(pipe.scheduler.config)
    assert relative_difference(run(pipe), run_plainly(pipe)) < 10 * EXACT


def test_nothing_outlives_a_call(pipe: FaceSwapInpaintPipeline):
    first = run(pipe)
    with torch.no_grad():
        for layer in shared_layers(pipe):
            layer.weight.mul_(1.5)
    second = run(pipe)
    assert relative_difference(second, first) > 1e-3
    assert relative_difference(second, run_plainly(pipe)) < 10 * EXACT


def test_a_step_that_fails_leaves_the_unet_as_it_was(pipe: FaceSwapInpaintPipeline):
    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    expected = run(pipe)
    hook = pipe.unet.conv_out.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(pipe)
    hook.remove()
    assert "forward" not in vars(pipe.unet.time_embedding)
    assert torch.equal(run(pipe), expected)
    layers = shared_layers(pipe)
    tensors = (torch.ones(1, 9, 16, 16), 5, torch.ones(1, 1, pipe.unet.config.cross_attention_dim))
    with torch.no_grad():
        assert calls_of(layers, lambda: [pipe.unet(*tensors) for _ in range(2)]) == [2] * len(layers)


class TestCallback:
    def change(self, pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        tensors["condition_embeds"].mul_(0.5)  # in place: the tensor stays the same object
        return {}

    def test_a_condition_that_it_changes_counts_from_then_on(self, pipe: FaceSwapInpaintPipeline):
        watched = {
            "callback_on_step_end": self.change, "callback_on_step_end_tensor_inputs": ["condition_embeds"],
        }  # fmt: skip
        changed = run(pipe, **watched)
        assert relative_difference(changed, run(pipe)) > 1e-3
        assert relative_difference(changed, run_plainly(pipe, **watched)) < 10 * EXACT

    def test_one_that_changes_nothing_gives_the_same_bytes(self, pipe: FaceSwapInpaintPipeline):
        assert torch.equal(run(pipe, callback_on_step_end=lambda *_: {}), run(pipe))


class TestLora:
    @pytest.fixture
    def adapted(self, pipe: FaceSwapInpaintPipeline) -> FaceSwapInpaintPipeline:
        torch.manual_seed(0)
        targets = ["to_v", "to_out.0", "linear_1"]
        pipe.unet.add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
        return pipe

    @pytest.mark.parametrize("scale", [1.0, 0.3])
    def test_layers_count_by_the_scale_of_the_call(self, adapted: FaceSwapInpaintPipeline, scale: float):
        scaled = {"cross_attention_kwargs": {"scale": scale}}
        run(adapted, cross_attention_kwargs={"scale": 0.7})
        result = run(adapted, **scaled)
        assert relative_difference(result, run_plainly(adapted, **scaled)) < 10 * EXACT

    def test_an_adapter_that_a_callback_disables_is_off_from_then_on(self, adapted: FaceSwapInpaintPipeline):
        def disable(pipeline: FaceSwapInpaintPipeline, *_: Any) -> dict[str, Any]:
            pipeline.unet.disable_adapters()
            return {}

        result = run(adapted, callback_on_step_end=disable)
        adapted.unet.enable_adapters()
        whole = run(adapted)
        assert relative_difference(result, whole) > 1e-3
        assert relative_difference(result, run_plainly(adapted, callback_on_step_end=disable)) < 10 * EXACT


def test_offloaded_layers_run_in_each_step(pipe: FaceSwapInpaintPipeline):
    expected = run(pipe)
    for module in pipe.unet.modules():
        add_hook_to_module(module, OwnTensorsAway())
    layers, images = shared_layers(pipe), []
    assert calls_of(layers, lambda: images.append(run(pipe))) == [STEPS] * len(layers)
    assert relative_difference(images[0], expected) < 10 * EXACT


@pytest.mark.parametrize("is_replaced", [True, False])
def test_a_compiled_unet_gives_the_same(pipe: FaceSwapInpaintPipeline, is_replaced: bool):
    expected = run(pipe)
    if is_replaced:
        pipe.unet = torch.compile(pipe.unet, backend="eager")
    else:
        pipe.unet.compile(backend="eager")
    assert relative_difference(run(pipe), expected) < 10 * EXACT


class TestCallMemory:
    def test_results_are_told_apart_by_owner_and_inputs(self):
        memory, inputs, computed = CallMemory(), [torch.ones(1), torch.ones(1)], []

        def recall(owner: str, tensor: torch.Tensor) -> None:
            memory.recall(owner, (tensor,), lambda: computed.append(owner) or torch.zeros(1))

        for owner in ("a", "b"):
            for _ in range(2):
                for tensor in inputs:
                    recall(owner, tensor)
        assert computed == ["a", "a", "b", "b"]
        memory.forget()
        recall("a", inputs[0])
        assert computed[4:] == ["a"]
