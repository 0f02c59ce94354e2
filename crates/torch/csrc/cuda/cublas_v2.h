// libtorch's headers for CUDA name handles and states of four libraries, of which nothing else is used here. The files of
// this folder declare them, so that building needs no headers of those libraries, whose packages are large.
#pragma once

typedef struct cublasContext *cublasHandle_t;
enum cublasStatus_t : int;
