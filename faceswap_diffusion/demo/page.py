"""The page of the demo, for desks and phones. Everything on it can be reached by keyboard."""

from functools import partial

import gradio as gr
from gradio.components import Component

from faceswap_diffusion.demo.handlers import Handlers, example
from faceswap_diffusion.demo.work import DemoWork
from faceswap_diffusion.masks.regions import REGIONS

MOST_STEPS = 50

TITLE = "Swap a face"
INTRODUCTION = """# Swap a face
Swap faces only of people who agreed to it. Every result says that AI made it: in its metadata, and by an invisible
mark in the new face. The tab *Verify* finds both."""

EXAMPLES = {"a portrait": "p010_selfie.jpg", "a group": "group.jpg"}

CSS = """
.gradio-container {max-width: 1200px !important}
.gradio-container {--block-info-text-color: var(--block-label-text-color)}
#faces-picture img {cursor: pointer; max-height: 440px}
@media (max-width: 640px) {.gradio-container {padding: 8px !important}}
"""


def build_page(work: DemoWork) -> gr.Blocks:
    """Builds the page.

    Args:
        work ([`DemoWork`]): What happens behind it.
    """
    handlers = Handlers(work)
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Tabs():
            with gr.Tab("Swap", id="swap"):
                _swap_tab(handlers)
            with gr.Tab("Verify", id="verify"):
                _verify_tab(handlers)
        gr.Markdown(_promises(work))
        page.unload(handlers.leave)
    return page


def _promises(work: DemoWork) -> str:
    limits = work.limits
    return (
        f"Files have up to {limits.megabytes:g} MB, photos and frames up to {limits.megapixels:g} megapixels, videos "
        f"up to {limits.seconds:g} seconds. Uploads and results are deleted after {limits.minutes:g} minutes."
    )


def _swap_tab(handlers: Handlers) -> None:
    shown = gr.State(None)
    with gr.Row():
        with gr.Column(min_width=300):
            sources = gr.Gallery(
                label="Source: photos of one person", type="filepath", file_types=["image"], columns=4,
                fit_columns=False, object_fit="contain", height=220, interactive=True, sources=["upload"],
                buttons=[], elem_id="sources",
            )  # fmt: skip
            target = gr.File(
                label="Target: photo or video to change", file_types=["image", "video"], height=140, elem_id="target"
            )
            with gr.Row():
                buttons = [gr.Button(f"Example: {name}", size="sm", min_width=120) for name in EXAMPLES]
            picture = gr.Image(
                label="Click on the faces to swap", interactive=False, buttons=[], elem_id="faces-picture",
                alt_text="the target with boxes around its faces, which are numbered from the left",
            )  # fmt: skip
            faces = gr.CheckboxGroup([], label="Faces to swap, counted from the left", visible=False, elem_id="faces")
            video_face = gr.Radio(["largest", "all"], value="largest", label="Faces to swap", visible=False)
            settings = _settings(handlers.work)
        with gr.Column(min_width=300):
            agreed = gr.Checkbox(
                label="Everybody shown has agreed to this swap", elem_id="agreed",
                info="Required. It is recorded in the result with what you write below.",
            )  # fmt: skip
            consent = gr.Textbox(label="Who agreed, and how (optional)", max_length=500, elem_id="consent")
            with gr.Row():
                start = gr.Button("Swap", variant="primary", min_width=140, elem_id="start")
                cancel = gr.Button("Cancel", variant="stop", min_width=140, elem_id="cancel")
            status = gr.Textbox(label="What was done", lines=2, interactive=False, elem_id="status")
            slider = gr.ImageSlider(
                label="Before and after", type="filepath", interactive=False, buttons=["fullscreen"], max_height=520,
                elem_id="pair",
            )  # fmt: skip
            video = gr.Video(label="Result", visible=False, interactive=False, buttons=[])
            download = gr.DownloadButton("Download the result", interactive=False, elem_id="download")
            with gr.Accordion("Where the picture is new", open=False):
                mask = gr.Image(
                    type="filepath", interactive=False, buttons=[], show_label=False, elem_id="mask",
                    alt_text="white where the picture is new",
                )  # fmt: skip
    for button, name in zip(buttons, EXAMPLES.values(), strict=True):
        button.click(partial(example, name), None, [sources, target], api_visibility="private")
    target.change(handlers.find_faces, target, [picture, faces, video_face, shown], api_name="find_faces")
    picture.select(handlers.click, [shown, faces], faces, api_visibility="private", show_progress="hidden")
    faces.change(handlers.redraw, [shown, faces], picture, api_visibility="private", show_progress="hidden")
    swapping = start.click(
        handlers.swap,
        [sources, target, faces, video_face, *settings, agreed, consent],
        [slider, mask, video, download, status],
        api_name="swap",
        concurrency_limit=1,
        show_progress_on=status,
    )
    swapping.success(handlers.arrange, video, [slider, video, download], api_visibility="private", queue=False)
    cancel.click(handlers.cancel, None, status, cancels=[swapping], queue=False, api_name="cancel")


def _settings(work: DemoWork) -> list[Component]:
    """Region, kept parts, occlusion, steps and seed."""
    usual = int(work.swapper.pipeline.config["default_num_inference_steps"])
    with gr.Accordion("Settings", open=False):
        names = list(REGIONS)
        return [
            gr.Dropdown(names, value=["face"], multiselect=True, label="What to repaint", elem_id="region"),
            gr.Dropdown(names, value=[], multiselect=True, label="What of it stays as it is"),
            gr.Checkbox(True, label="Leave hands, hair and other things in front of faces as they are"),
            gr.Slider(1, MOST_STEPS, value=usual, step=1, label="Denoising steps", elem_id="steps"),
            gr.Number(0, precision=0, minimum=0, label="Seed: the same gives the same picture"),
        ]


def _verify_tab(handlers: Handlers) -> None:
    file = gr.File(label="Picture or video to look at", file_types=["image", "video"], height=140, elem_id="to-verify")
    look = gr.Button("Verify", variant="primary", elem_id="verify")
    found = gr.Textbox(label="What was found", lines=5, interactive=False, elem_id="found")
    look.click(handlers.verify, file, found, api_name="verify")
