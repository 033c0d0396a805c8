"""How each release spells the steps of a recipe: rows of words, one module a family or subject."""
