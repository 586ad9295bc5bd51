// What a test program counts and prints: the first failures, and how many there were.
#ifndef KERAS_KD_CSRC_TESTS_EXPECT_H_
#define KERAS_KD_CSRC_TESTS_EXPECT_H_

#include <cstdio>
#include <string>

namespace keras_kd {

inline int failures = 0;

inline void Expect(bool holds, const std::string& what) {
  if (holds) return;
  ++failures;
  if (failures < 20) std::printf("FAILED: %s\n", what.c_str());
}

inline void ExpectError(const std::string& error, const std::string& part) {
  Expect(error.find(part) != std::string::npos, "'" + error + "' says '" + part + "'");
}

}  // namespace keras_kd

#endif  // KERAS_KD_CSRC_TESTS_EXPECT_H_
