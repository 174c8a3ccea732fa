#include "tests/support/run_program.h"

#include <sys/wait.h>

#include <cstdlib>

#include "core/file.h"
#include "tests/support/temp_dir.h"

namespace hadal::test {

ProgramResult run_hadal(const std::string& arguments, const std::string& environment) {
  const TempDir dir;
  const std::string out = (dir / "out").string(), err = (dir / "err").string();
  // Open MPI's plug-ins leave blocks behind when they are unloaded: under AddressSanitizer a program that joined MPI would end with
  // its leak report. Leaks of our own show in the unit tests, which run in this process.
  const std::string line = "(export ASAN_OPTIONS=detect_leaks=0; for v in $(env | grep -o '^\\(OMPI\\|PMIX\\|PMI\\|SLURM\\)_[A-Z_0-9]*'); do unset $v; done; " +
                           environment + " " HADAL_BINARY " " + arguments + ") >" + out + " 2>" + err + " </dev/null";
  const int status = std::system(line.c_str());
  ProgramResult result;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  result.out = read_file(out);
  result.err = read_file(err);
  return result;
}

}  // namespace hadal::test
