// The program around the table of verbs: finds the verb, runs it, turns what is thrown into a message and an exit code.
#pragma once

namespace hadal::cli {

/// Runs one command line; returns the exit code (spec/cli.md). Starts no MPI itself, but for ranks that must agree on who reports
/// an error; an exception that gets here ends the whole job (comm::fail).
int run_program(int argc, const char* const* argv);

}  // namespace hadal::cli
