"""What happens when somebody clicks: from Gradio's values to `DemoWork` and back."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from faceswap_diffusion.demo.cancelling import CancelledError, Cancelling, check
from faceswap_diffusion.demo.drawing import ShownTarget
from faceswap_diffusion.demo.work import CONSENTED, DemoWork
from faceswap_diffusion.photos.folders import is_video

EXAMPLES = Path(__file__).parent / "examples"
P = ParamSpec("P")
T = TypeVar("T")


def shows_errors(handler: Callable[P, T]) -> Callable[P, T]:
    """A handler whose `ValueError` is shown to the user as it is; of other errors Gradio says nothing but that."""

    @wraps(handler)
    def shown(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return handler(*args, **kwargs)
        except CancelledError as error:
            raise gr.Error(str(error), title="Cancelled", duration=5, print_exception=False) from None
        except ValueError as error:
            raise gr.Error(str(error), duration=20, print_exception=False) from None

    return shown


class Handlers:
    """The functions behind the page's buttons; their arguments are in the order of the page's components.

    Args:
        work ([`DemoWork`]): Does it.
    """

    def __init__(self, work: DemoWork):
        self.work = work
        self.cancelling = Cancelling()

    def find_faces(self, target: str | None) -> tuple[Any, Any, Any, ShownTarget | None]:
        """Finds and draws the faces of a target, of which the largest is chosen."""
        nothing = gr.CheckboxGroup(choices=[], value=[], visible=False)
        if target is None:
            return None, nothing, gr.Radio(visible=False), None
        shown = self._show(target)
        if shown.is_video:
            return self.work.draw(shown, ()), nothing, gr.Radio(visible=True), shown
        largest = shown.largest()
        choices = [(f"face {index}", index) for index in range(len(shown.boxes))]
        faces = gr.CheckboxGroup(choices=choices, value=[largest], visible=True)
        return self.work.draw(shown, (largest,)), faces, gr.Radio(visible=False), shown

    @shows_errors
    def _show(self, target: str) -> ShownTarget:
        return self.work.show(target)

    def click(self, shown: ShownTarget | None, faces: list[int], at: gr.SelectData) -> list[int]:
        """Chooses the face that was clicked on, or drops it."""
        face = None if shown is None else shown.at(*at.index)
        return faces if face is None else sorted({*faces} ^ {face})

    @shows_errors
    def redraw(self, shown: ShownTarget | None, faces: list[int]) -> Any:
        """Draws the faces anew when others are chosen."""
        return gr.skip() if shown is None or shown.is_video else self.work.draw(shown, faces)

    @shows_errors
    def swap(
        self,
        sources: list[tuple[str, Any]] | None,
        target: str | None,
        faces: list[int],
        video_face: str,
        region: list[str],
        keep: list[str],
        occlusion: bool,
        steps: float,
        seed: float,
        agreed: bool,
        consent: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio is told to pass one
    ) -> tuple[Any, str | None, str | None, str, str]:
        """Swaps, in a photo or in a video; returns values of slider, mask, video, download and text."""
        if target is None:
            raise ValueError("no target is given: add the photo or video to change")
        if not agreed:
            raise ValueError(
                "nobody has agreed: swap faces only of people who did, and say so by the box above 'Swap'"
            )
        if not region:
            raise ValueError("no region is chosen: choose at least one, such as face")
        settings = {
            "region": "+".join(region),
            "keep": "+".join(keep) or None,
            "occlusion": "auto" if occlusion else "off",
            "num_inference_steps": int(steps),
            "seed": int(seed),
            "consent": consent.strip() or CONSENTED,
        }
        photos = [path for path, _ in sources or []]
        session = str(request.session_hash)
        ended = self.cancelling.begin(session)

        def tell(share: float, what: str) -> None:
            check(ended)
            progress(share, desc=what)

        try:
            if is_video(target):
                made = self.work.swap_video(photos, target, video_face, tell, **settings)
                return None, None, str(made.file), str(made.file), made.text
            made = self.work.swap_photo(photos, target, faces, tell, **settings)
            return made.pair, str(made.mask), None, str(made.file), made.text
        finally:
            self.cancelling.end(session)

    def arrange(self, video: str | None) -> tuple[Any, Any, Any]:
        """Shows the slider for a photo or the player for a video, and lets it be downloaded."""
        is_photo = video is None
        return gr.ImageSlider(visible=is_photo), gr.Video(visible=not is_photo), gr.DownloadButton(interactive=True)

    def cancel(self, request: gr.Request) -> str:
        """Ends the swap of whoever asks."""
        running = self.cancelling.cancel(str(request.session_hash))
        return "Cancelled: nothing of this swap is kept." if running else "There is nothing to cancel."

    def leave(self, request: gr.Request) -> None:
        """Ends the swap of whoever has closed the page."""
        self.cancelling.cancel(str(request.session_hash))

    @shows_errors
    def verify(self, path: str | None) -> str:
        """Says whether a picture or a video was made here."""
        if path is None:
            raise ValueError("no file is given: add a picture or a video to look at")
        return self.work.verify(path)


def example(target: str) -> tuple[list[str], str]:
    """A source and a target from the package."""
    return [str(EXAMPLES / "p001_portrait.jpg")], str(EXAMPLES / target)
