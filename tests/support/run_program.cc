#include "tests/support/run_program.h"

#include <sys/wait.h>

#include <cstdlib>

#include "core/file.h"
#include "tests/support/temp_dir.h"

namespace hadal::test {

ProgramResult run_hadal(const std::string& arguments, const std::string& environment) {
  const TempDir dir;
  const std::string out = (dir / "out").string(), err = (dir / "err").string();
  const std::string line = "(for v in $(env | grep -o '^\\(OMPI\\|PMIX\\|PMI\\|SLURM\\)_[A-Z_0-9]*'); do unset $v; done; " +
                           environment + " " HADAL_BINARY " " + arguments + ") >" + out + " 2>" + err + " </dev/null";
  const int status = std::system(line.c_str());
  ProgramResult result;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  result.out = read_file(out);
  result.err = read_file(err);
  return result;
}

}  // namespace hadal::test
