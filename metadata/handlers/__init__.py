"""What MetadataService answers: one file per group of methods, all input checked here."""
