"""What each ingredient of a recipe is worth: the same short training without one of them at a time, measured.

    faceswap-diffusion fetch w600k_mbf inception lpips_vgg16 6drepnet360
    python train/ablate.py --config train/ablation.yaml --train_data_dir data/faces \
        --protocol turned=photos --output_dir runs/ablation

Every run begins with the same weights and sees as many pictures. All swap the same pairs, and `table.md` in the output
folder has a line for each ingredient, the mean over the seeds and how far they lie apart. A run that is there already
is not repeated: stopped, the same command goes on.
"""

import csv
import multiprocessing
import os
import runpy
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean

import yaml
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveInt

SCRIPT = Path(__file__).with_name("train_faceswap.py")
RECIPE = Path(__file__).with_name("recipes") / "small.yaml"
WHOLE = "the whole recipe"

FIGURES = {
    "sface_closer_to_source": ("SFace closer", 100, "{:.0f}", " %"),
    "w600k_closer_to_source": ("w600k closer", 100, "{:.0f}", " %"),
    "sface_cosine_to_source": ("SFace cosine", 1, "{:.3f}", ""),
    "w600k_cosine_to_source": ("w600k cosine", 1, "{:.3f}", ""),
    "pose_error": ("pose", 1, "{:.1f}", "°"),
    "6drepnet_pose_error": ("pose, 6DRepNet", 1, "{:.1f}", "°"),
    "expression_closer_to_target": ("expression", 100, "{:.0f}", " %"),
    "light_angle": ("light", 1, "{:.1f}", "°"),
    "sharpness_crop": ("sharpness", 1, "{:.2f}", ""),
}
"""Figures of the evaluation's `figures.csv`: heading, factor, format and unit of their columns."""


def ablation_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="ablate.py", description=__doc__)
    parser.add_argument("--config", action="config")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="settings that all runs share")
    parser.add_argument(
        "--without", type=dict[str, dict], required=True, help="for each ingredient, the settings that leave it out"
    )
    parser.add_argument("--settings", type=dict, default={}, help="of all runs, in place of the recipe's")
    parser.add_argument("--train_data_dir", type=Path, required=True, help="prepared faces")
    parser.add_argument("--protocol", type=str, required=True, help="as `faceswap-diffusion evaluate` wants it")
    parser.add_argument("--limit", type=PositiveInt, default=100, help="pairs at most")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--max_train_steps", type=PositiveInt, default=150)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--num_parallel", type=PositiveInt, default=1, help="runs at a time, which share the cores")
    return parser


def checkpoint_name(ingredient: str, seed: int) -> str:
    return f"{ingredient} {seed}"


def train(args: Namespace, ingredient: str, seed: int) -> Path:
    """The checkpoint of a run, which is trained if it is not there."""
    checkpoint = args.output_dir / "checkpoints" / checkpoint_name(ingredient, seed)
    if checkpoint.exists():
        return checkpoint
    run = args.output_dir / "runs" / checkpoint.name
    run.mkdir(parents=True, exist_ok=True)
    settings = {
        **yaml.safe_load(args.recipe.read_text()),
        **args.settings,
        "max_train_steps": int(args.max_train_steps),
        "train_data_dir": [str(args.train_data_dir.resolve())],
        "output_dir": str(run),
        "seed": seed,
        "report_to": "none",
        **args.without.get(ingredient, {}),
    }
    config = run / "settings.yaml"
    config.write_text(yaml.safe_dump(settings))
    run_program(f"training {checkpoint.name!r}", run / "log.txt", args.num_parallel, SCRIPT, "--config", config)
    checkpoint.parent.mkdir(exist_ok=True)
    (run / "pipeline").rename(checkpoint)
    return checkpoint


def run_program(what: str, log: Path, num_parallel: int, *command: object) -> None:
    """Runs a script or a module in a process of its own, beside others, and writes what it tells to a file."""
    process = multiprocessing.get_context("spawn").Process(target=become, args=(log, num_parallel, *map(str, command)))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{what} failed: {log} says why")


def become(log: Path, num_parallel: int, *command: str) -> None:
    with open(log, "w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // num_parallel))
    sys.argv = [*command]
    if command[0].endswith(".py"):
        runpy.run_path(command[0], run_name="__main__")
    else:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)


def evaluate(args: Namespace, checkpoints: list[Path]) -> dict[str, dict[str, float]]:
    """Figures of each checkpoint, by their names in the evaluation."""
    report = args.output_dir / "report"
    launcher = ["torch.distributed.run", "--nproc-per-node", args.num_parallel, "-m"]
    program = [*(launcher if args.num_parallel > 1 else []), "faceswap_diffusion.evaluation"]
    program += ["--protocol", args.protocol, "--limit", args.limit, "-o", report]
    program += [part for checkpoint in checkpoints for part in ("--checkpoint", checkpoint)]
    run_program("the evaluation", args.output_dir / "evaluation.txt", args.num_parallel, *program)
    figures: dict[str, dict[str, float]] = defaultdict(dict)
    with open(report / "figures.csv", newline="", encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            if row["value"]:
                figures[row["method"]][row["figure"]] = float(row["value"])
    return figures


def table(figures: dict[str, dict[str, float]], ingredients: list[str], seeds: list[int]) -> str:
    """Markdown: a line for each ingredient, mean over the seeds ± half of what they differ by."""
    measured = [name for name in FIGURES if all(name in row for row in figures.values())]
    lines = [["", *(FIGURES[name][0] for name in measured)], ["---"] * (len(measured) + 1)]
    for ingredient in ingredients:
        rows = [figures[checkpoint_name(ingredient, seed)] for seed in seeds]
        cells = [cell(name, [row[name] for row in rows]) for name in measured]
        lines.append([ingredient if ingredient == WHOLE else f"without {ingredient}", *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cell(name: str, values: list[float]) -> str:
    _, factor, number, unit = FIGURES[name]
    spread = (max(values) - min(values)) / 2
    return f"{number.format(factor * mean(values))} ± {number.format(factor * spread)}{unit}"


def main(arguments: list[str] | None = None) -> None:
    args = ablation_parser().parse_args(arguments)
    ingredients = [WHOLE, *args.without]
    runs = [(ingredient, seed) for ingredient in ingredients for seed in args.seeds]
    with ThreadPoolExecutor(args.num_parallel) as pool:
        checkpoints = list(pool.map(lambda run: train(args, *run), runs))
    text = table(evaluate(args, checkpoints), ingredients, args.seeds)
    (args.output_dir / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
