#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "tensorrt_llm/common/build.h"

extern "C" int cuInit(unsigned flags);

static PyObject* answer(PyObject*, PyObject*)
{
    return PyLong_FromLong(tensorrt_llm::common::answer());
}

static PyObject* driver(PyObject*, PyObject*)
{
    return PyLong_FromLong(cuInit(0));
}

static PyMethodDef methods[]
    = {{"answer", answer, METH_NOARGS, "42"}, {"driver", driver, METH_NOARGS, "what cuInit says"}, {}};

static PyModuleDef module = {PyModuleDef_HEAD_INIT, "bindings", nullptr, -1, methods};

PyMODINIT_FUNC PyInit_bindings()
{
    return PyModule_Create(&module);
}
