"""Runs, studies and predictions looked at in a browser (`cabruca monitor`).

The data side (everything but `app.py`, `look.py` and `views/`) knows no Streamlit: it reads what a run or a study
leaves behind, unpickles nothing, and writes nothing but `notes.json`; it removes nothing but checkpoints.
"""
