"""Files that people read made into rows of text: `read_documents(paths)`."""

from finetune.data.documents.reading import KINDS, Documents, read_documents

__all__ = ["KINDS", "Documents", "read_documents"]
