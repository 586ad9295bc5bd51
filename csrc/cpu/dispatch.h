// Which copy of the kernels runs: the widest instruction set that this processor has.
#ifndef KERAS_KD_CSRC_CPU_DISPATCH_H_
#define KERAS_KD_CSRC_CPU_DISPATCH_H_

#include <string>
#include <vector>

#include "kernel_table.h"

namespace keras_kd {

// The copies that this processor can execute, narrowest first.
std::vector<const KernelTable*> RunnableKernels();

// The copy in use. KERAS_KD_ISA=baseline|avx2|avx512 chooses one at the first call; a name that
// this processor cannot execute is ignored there, and reported by `doctor`.
const KernelTable& Kernels();

// "auto" for the widest. False, and nothing changed, if this processor cannot execute `name`.
bool SetInstructionSet(const std::string& name);

}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_CPU_DISPATCH_H_
