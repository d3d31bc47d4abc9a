"""Published results as runnable studies: each re-derives one, and sets the published figures beside its own."""

from tierform.studies.study import ABOUT, STUDIES, Picture, StudyOptions, StudyResult, Table

__all__ = ["ABOUT", "STUDIES", "Picture", "StudyOptions", "StudyResult", "Table"]
