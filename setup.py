"""What pyproject.toml cannot say of the wheel: prefect.yaml, at the top of the checkout, goes with
the flows.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithDeployments(build_py):
    """Copies the modules, and prefect.yaml beside them. An editable install reads the checkout's
    own.
    """

    def run(self) -> None:
        """Copy all of it."""
        super().run()
        if not self.editable_mode:
            self.copy_file(
                "prefect.yaml", str(Path(self.build_lib) / "lightlm_flows" / "prefect.yaml")
            )


setup(cmdclass={"build_py": BuildWithDeployments})
