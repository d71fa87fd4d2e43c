"""Training mechanisms of the published methods: gate entropy, CEC, curriculum masking, MWAM weights."""
