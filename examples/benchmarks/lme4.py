"""lme4's deviance function (value only, C++), where R with lme4 is installed."""

from __future__ import annotations

import csv
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from examples.benchmarks.sets import Set

_SCRIPT = """
library(lme4)
words <- commandArgs(trailingOnly = TRUE)
data <- read.csv(words[1]); formula <- as.formula(words[2]); rounds <- as.integer(words[3])
for (name in all.vars(formula)) if (grepl(paste0("\\\\|+ *", name, "\\\\)"), words[2]))
  data[[name]] <- factor(data[[name]])
devfun <- lmer(formula, data, REML = FALSE, devFunOnly = TRUE)
theta <- environment(devfun)$pp$theta
one <- system.time(for (k in 1:3) devfun(theta))[["elapsed"]] / 3
count <- max(1, ceiling(0.3 / max(one, 1e-5)))
for (r in 1:rounds) {
  taken <- system.time(for (k in 1:count) devfun(theta * (1 + 1e-7 * k)))[["elapsed"]]
  cat(taken / count, "\\n")
}
"""


def missing() -> str | None:
    """Why lme4 cannot be run, or None."""
    if shutil.which("Rscript") is None:
        return "R is not installed"
    asked = ["Rscript", "-e", 'if (!requireNamespace("lme4", quietly = TRUE)) quit(status = 1)']
    failed = subprocess.run(asked, check=False, capture_output=True).returncode
    return "R has no package lme4" if failed else None


def lme4(data: Set, rounds: int) -> dict[str, Any] | None:
    """One row, in microseconds; None where lme4 has no such model."""
    if data.formula is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        table, script = Path(folder, "data.csv"), Path(folder, "devfun.R")
        script.write_text(_SCRIPT)
        with table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([f"c{k}" for k in range(len(data.args))])
            writer.writerows(zip(*data.args, strict=True))
        command = ["Rscript", str(script), str(table), data.formula, str(rounds)]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    times = np.array([float(line) for line in said.split()]) * 1e6
    return {"set": data.name, "us": np.median(times), "us_min": times.min(), "us_max": times.max()}
