"""Libraries that some metrics are computed with, which a plain installation does not bring."""

from __future__ import annotations

from importlib.util import find_spec

from promptsearch.errors import TaskError


def require(package: str, metric: str, how: str = "'promptsearch-kit[metrics]'") -> None:
    """See that a package is installed, without importing it.

    Args:
        package: The name under which it is imported.
        metric: The metric that is computed with it.
        how: What to tell pip to install.

    Raises:
        TaskError: It is not; the message says what to install.
    """
    if find_spec(package) is None:
        raise TaskError(f"the metric '{metric}' needs the package {package}: pip install {how}")
