"""Figures in the form that the Hugging Face Hub reads."""

from collections.abc import Sequence
from typing import Any

from huggingface_hub import EvalResult
from huggingface_hub.repocard_data import eval_results_to_model_index

from faceswap_diffusion.evaluation.figures import figure_rows


def model_index(report: dict[str, Any], keys: Sequence[str]) -> list[dict[str, Any]]:
    """The figures of the first method in the form that the Hub reads (model-index).

    Args:
        report (`dict[str, Any]`): See `build_report`.
        keys (`Sequence[str]`): Which figures, as far as they were measured.
    """
    name, labels = next(iter(report["methods"])), {row.key: row.label for row in figure_rows(report["recognizers"])}
    results = [
        EvalResult(
            task_type="image-to-image",
            dataset_type=set_name,
            dataset_name=f"{set_name}, {of_set['pairs']} pairs",
            metric_type=key,
            metric_name=labels[key],
            metric_value=of_set["methods"][name][key]["value"],
        )
        for set_name, of_set in report["sets"].items()
        for key in keys
        if of_set["methods"].get(name, {}).get(key, {}).get("value") is not None
    ]
    return eval_results_to_model_index(name, results)
