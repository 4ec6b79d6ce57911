"""Serves the demo's page."""

from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr
from gradio.themes import Default

from faceswap_diffusion.demo.limits import Limits, Storage
from faceswap_diffusion.demo.page import CSS, build_page
from faceswap_diffusion.demo.work import DemoWork
from faceswap_diffusion.swapping.swapper import FaceSwapper

LOOPBACK = "127.0.0.1"


@contextmanager
def served(
    swapper: FaceSwapper, host: str = LOOPBACK, port: int | None = None, limits: Limits | None = None
) -> Iterator[gr.Blocks]:
    """Serves the page while the block runs; then everything that was uploaded or made is deleted.

    Args:
        swapper ([`FaceSwapper`]): Swaps.
        host (`str`): Address to listen on; that of this computer alone if left out.
        port (`int`, *optional*): The first free one from 7860 on if left out.
        limits ([`Limits`], *optional*): What is taken.

    Yields:
        `gr.Blocks`: The page, whose `local_url` says where it is.

    Raises:
        ValueError: If host and port cannot be had.
    """
    limits = limits or Limits()
    with Storage(limits.minutes) as storage:
        page = build_page(DemoWork(swapper, storage, limits)).queue(max_size=limits.waiting + 1)
        try:
            page.launch(
                server_name=host,
                server_port=port,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                max_file_size=round(limits.megabytes * 1e6),
                ssr_mode=False,
                footer_links=["api"],
                theme=Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
                css=CSS,
            )
        except OSError:
            raise ValueError(
                f"cannot listen on {host}:{port or '7860 to 7959'}: choose another --port or --host"
            ) from None
        try:
            yield page
        finally:
            page.close(verbose=False)
