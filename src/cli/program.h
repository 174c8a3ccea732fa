// The program around the table of verbs: finds the verb, runs it, turns what is thrown into a message and an exit code.
#pragma once

namespace hadal::cli {

/// Runs one command line; returns the exit code (spec/cli.md). Starts no MPI.
int run_program(int argc, const char* const* argv);

/// A command that joins other ranks calls this once MPI runs: an exception that reaches run_program then ends the whole
/// job at once through `hook(exit_code)`, which does not return. nullptr takes it away.
void set_abort_hook(void (*hook)(int exit_code));

}  // namespace hadal::cli
