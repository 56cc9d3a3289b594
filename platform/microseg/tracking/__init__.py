"""MLflow: the study -> trial -> fold tree, pictures, provenance. The view of a study, never its truth."""
