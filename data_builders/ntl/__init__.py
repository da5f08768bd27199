"""Low-resource languages, section 4.2: data from parallel and monolingual corpora."""
