// The program around the table of verbs: finds the verb, runs it, turns what is thrown into a message and an exit code.
#pragma once

namespace hadal::cli {

/// Runs one command line; returns the exit code (spec/cli.md). Starts no MPI; once a command has joined other ranks, an
/// exception that gets here ends the whole job at once.
int run_program(int argc, const char* const* argv);

}  // namespace hadal::cli
