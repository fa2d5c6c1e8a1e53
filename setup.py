"""What pyproject.toml cannot state: prefect.yaml in the wheel, and links on the package page.

A package page shows README.md outside the repository, where relative links lead nowhere. A build
with LIGHTLM_PROJECT_URL=https://HOST/OWNER/NAME makes them absolute; one without drops them.
"""

import os
import re
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ADDRESS = "LIGHTLM_PROJECT_URL"

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:)([^)]+)\)")
"""A relative link or picture of Markdown: "!" for a picture, its text, its target."""


def render_package_page(text: str, address: str | None) -> str:
    """Return README's text with absolute links, or without address with their texts alone."""

    def replace(found: re.Match[str]) -> str:
        mark, words, target = found.groups()
        if address is None:
            return "" if mark else words
        kind = "raw" if mark else "blob"
        page = "" if target.startswith("#") else f"/{kind}/HEAD/"
        return f"{mark}[{words}]({address.rstrip('/')}{page}{target})"

    return LINK.sub(replace, text)


class BuildWithDeployments(build_py):
    """Copies the modules, and prefect.yaml with them. An editable install reads the checkout's."""

    def run(self) -> None:
        """Copy all of it."""
        super().run()
        if not self.editable_mode:
            self.copy_file(
                "prefect.yaml", str(Path(self.build_lib) / "lightlm_flows" / "prefect.yaml")
            )


if __name__ == "__main__":
    readme = Path("README.md").read_text(encoding="utf-8")
    setup(
        cmdclass={"build_py": BuildWithDeployments},
        long_description=render_package_page(readme, os.environ.get(ADDRESS)),
        long_description_content_type="text/markdown",
    )
