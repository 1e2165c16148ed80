"""Build step: the files that ship with the package are copied into it (mg/shipped.py)."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
SHIPPED = ("assets", "configs", "protocols")


class BuildWithShippedFiles(build_py):
    """Builds the package with `mg/shipped` in it; an editable installation uses the checkout's."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for name in SHIPPED:
                target = Path(self.build_lib, "mg", "shipped", name)
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(ROOT / name, target)


setup(cmdclass={"build_py": BuildWithShippedFiles})
