"""Published results as runnable studies: each re-derives one, and sets the published figures beside its own."""

from tierform.studies.study import STUDIES, Picture, StudyOptions, StudyResult, Table

__all__ = ["STUDIES", "Picture", "StudyOptions", "StudyResult", "Table"]
