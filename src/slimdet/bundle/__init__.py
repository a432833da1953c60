"""The bundle, a model as a folder: its manifest (read without torch), saving and loading, one width taken out."""
