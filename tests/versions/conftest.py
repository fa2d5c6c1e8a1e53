from tests.model.conftest import build, hugging_face_folder

__all__ = ["build", "hugging_face_folder"]
