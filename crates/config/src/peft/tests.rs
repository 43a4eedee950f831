//! Key by key: what is read, what is neutral, what is refused. The modules are held against Python's `re` (`tests/golden/make_peft_modules.py`).
