"""Data for low-resource languages (section 4.2), built from parallel and monolingual corpora."""
