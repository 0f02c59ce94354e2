// `ProcessGroupGloo.hpp` of libtorch includes five headers of Gloo, which libtorch contains and whose headers it does
// not bring. The files of this folder declare what that header names, and nothing else; the definitions are in libtorch.
#pragma once
