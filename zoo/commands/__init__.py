"""The subcommands of `zoo`: each file holds those of one kind, as functions that `zoo.cli` puts together."""
