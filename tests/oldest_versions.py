"""The oldest version of every dependency that pyproject.toml allows, as constraints for pip.

python -m tests.oldest_versions > constraints.txt
"""

import tomllib
from pathlib import Path

if __name__ == "__main__":
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    print("\n".join(requirement.replace(">=", "==") for requirement in project["dependencies"]))
