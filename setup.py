from setuptools import find_packages, setup

# the recipes lie at the top of a checkout; an installed package carries them inside, where basicsr/interface/recipes.py finds them
setup(packages=[*find_packages(include=["basicsr*"]), "basicsr.options"], package_dir={"basicsr.options": "options"})
