"""The demo in Chromium: what is uploaded, clicked and typed there, and what is seen of it."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from faceswap_diffusion.provenance.save import read_provenance

BROWSER, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
SECONDS = 60
"""How long a busy machine may take for one thing."""

PICTURES = os.environ.get("DEMO_PICTURES")
"""A folder for pictures of the page, to be looked at."""

pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="there is no Chromium with its driver: apt-get install chromium chromium-driver"
)


class Visitor:
    """Somebody who has opened the page."""

    def __init__(self, driver: webdriver.Chrome, url: str):
        self.driver = driver
        driver.get(url)
        self.wait(lambda: driver.find_elements(By.ID, "start"))

    def wait(self, condition: Callable[[], Any]) -> Any:
        try:
            redrawn = (StaleElementReferenceException,)
            return WebDriverWait(self.driver, SECONDS, 0.1, redrawn).until(lambda _: condition())
        except TimeoutException:
            self.picture("failed")
            raise

    def find(self, selector: str) -> WebElement:
        return self.wait(lambda: self.driver.find_elements(By.CSS_SELECTOR, selector))[0]

    def click(self, selector: str) -> None:
        self.find(selector).click()

    def upload(self, place: str, path: Path) -> None:
        for button in self.driver.find_elements(By.CSS_SELECTOR, f"{place} button[aria-label=Clear]"):
            button.click()
        self.wait(lambda: not self.driver.find_elements(By.CSS_SELECTOR, f"{place} button[aria-label=Clear]"))
        self.find(f"{place} input[type=file]").send_keys(str(path))

    def text(self, place: str) -> str:
        return self.find(f"{place} textarea").get_attribute("value") or ""

    def errors(self) -> list[str]:
        """The texts of the errors that are shown now: several, if an earlier one is still there."""
        return [toast.text for toast in self.driver.find_elements(By.CSS_SELECTOR, "[data-testid=toast-text]")]

    def close_errors(self) -> None:
        for button in self.driver.find_elements(By.CSS_SELECTOR, "[data-testid=toast-close]"):
            self.driver.execute_script("arguments[0].click()", button)  # another toast may lie over it
        self.wait(lambda: not self.errors())

    def chosen(self) -> list[bool]:
        return self.driver.execute_script(
            "return [...document.querySelectorAll('#faces input')].map(box => box.checked)"
        )

    def picture(self, name: str) -> None:
        if PICTURES:
            self.driver.save_screenshot(str(Path(PICTURES, f"{name}.png")))


@pytest.fixture(scope="module")
def visitor(page: gr.Blocks) -> Iterator[Visitor]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,1400"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    try:
        yield Visitor(driver, page.local_url)
    finally:
        driver.quit()


def test_a_visitor_swaps_downloads_and_verifies(visitor: Visitor, photos: Path, tmp_path: Path):
    visitor.upload("#sources", photos / "source.jpg")
    visitor.upload("#target", photos / "target.jpg")
    visitor.wait(lambda: visitor.chosen() == [True])
    visitor.click("#start")
    nobody_agreed = "nobody has agreed: swap faces only of people who did, and say so by the box above 'Swap'"
    visitor.wait(lambda: nobody_agreed in visitor.errors())
    visitor.close_errors()
    visitor.find("#agreed input").send_keys(Keys.SPACE)
    visitor.find("#consent textarea, #consent input").send_keys("both, by letter", Keys.TAB)
    assert visitor.driver.switch_to.active_element.get_attribute("id") == "start"
    visitor.driver.switch_to.active_element.send_keys(Keys.ENTER)
    visitor.wait(lambda: visitor.text("#status").startswith("Swapped 1 of 1 faces in "))
    assert len(visitor.driver.find_elements(By.CSS_SELECTOR, "#pair img")) == 2
    visitor.picture("swapped")
    visitor.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    visitor.click("#download")
    visitor.wait((tmp_path / "swapped.png").exists)
    facts = read_provenance(tmp_path / "swapped.png") or {}
    assert (facts["checkpoint"], facts["consent"]) == ("faceswap-small", "both, by letter")
    visitor.click("button[data-tab-id=verify]")
    visitor.upload("#to-verify", tmp_path / "swapped.png")
    visitor.find("#to-verify .file-preview")
    visitor.click("#verify")
    visitor.wait(lambda: visitor.text("#found"))
    lines = visitor.text("#found").splitlines()
    assert lines[0] == "swapped.png: made with AI"
    assert lines[-1].startswith("  mark: in face 0")
    visitor.picture("verified")
    visitor.click("button[data-tab-id=swap]")


def test_faces_are_chosen_by_clicks_and_by_boxes(visitor: Visitor, photos: Path):
    visitor.upload("#target", photos / "group.jpg")
    visitor.wait(lambda: len(visitor.chosen()) == 4)
    assert sum(visitor.chosen()) == 1
    before = visitor.chosen()
    picture = visitor.find("#faces-picture img")
    across = webdriver.ActionChains(visitor.driver).move_to_element_with_offset
    across(picture, round(-picture.size["width"] * 3 / 8), 0).click().perform()  # the middle of the leftmost quarter
    visitor.wait(lambda: visitor.chosen() == [True, *before[1:]])
    visitor.find("#faces label:nth-of-type(2) input").send_keys(Keys.SPACE)
    visitor.wait(lambda: visitor.chosen() == [True, True, *before[2:]])
    visitor.picture("chosen")


def test_a_swap_is_cancelled_and_the_next_one_works(visitor: Visitor, photos: Path):
    visitor.upload("#target", photos / "target.jpg")
    visitor.wait(lambda: visitor.chosen() == [True])
    visitor.click("button.label-wrap")
    steps = visitor.find("#steps input[type=number]")
    steps.send_keys(Keys.CONTROL, "a")
    steps.send_keys("50", Keys.TAB)
    visitor.click("#start")
    visitor.wait(lambda: "painting" in visitor.find("#status").text)
    visitor.picture("painting")
    visitor.click("#cancel")
    visitor.wait(lambda: visitor.text("#status") == "Cancelled: nothing of this swap is kept.")
    steps.send_keys(Keys.CONTROL, "a")
    steps.send_keys("1", Keys.TAB)
    visitor.click("#start")
    visitor.wait(lambda: visitor.text("#status").startswith("Swapped 1 of 1 faces in 1 steps"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text.jpg", "cannot read text.jpg: it is empty or not a picture; use a JPEG, PNG or WebP file, for instance"),
        ("large.png", "large.png has 1.0 megapixels, and this demo takes 0.6: make it smaller first"),
        ("wall.png", "no face found in wall.png: use a photo in which a face is visible"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(visitor: Visitor, photos: Path, name: str, message: str):
    visitor.upload("#target", photos / name)
    visitor.wait(lambda: message in visitor.errors())
    visitor.close_errors()


def test_the_page_fits_a_phone(visitor: Visitor):
    visitor.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 1900, "deviceScaleFactor": 1, "mobile": True}
    )
    visitor.click("#start")  # it is in reach
    visitor.wait(visitor.errors)
    visitor.close_errors()
    visitor.picture("phone")
    assert visitor.driver.execute_script("return document.documentElement.scrollWidth") == 360


def test_nothing_is_asked_of_other_servers(visitor: Visitor, page: gr.Blocks):
    asked = visitor.driver.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert len(asked) > 20
    assert [url for url in asked if not url.startswith((page.local_url, "data:", "blob:"))] == []
