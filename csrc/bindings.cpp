// The Python face of the C++ code: checks types, shapes and offsets, then works without the GIL. Messages for users
// come from sketchynet/raster.py and sketchynet/sketch.py; what is checked here keeps any call from reading or
// writing outside its arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "raster/rasterizer.hpp"
#include "simplify.hpp"

namespace py = pybind11;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(message);
}

void require_points(const Array<float>& points) {
    require(points.ndim() == 2 && points.shape(1) == 2, "points must be float32 (N, 2)");
}

// Offsets rise from 0 to `total`: no part is empty.
void require_offsets(const Array<std::int64_t>& offsets, py::ssize_t total, const char* message) {
    require(offsets.ndim() == 1 && offsets.size() >= 1, message);
    const std::int64_t* value = offsets.data();
    require(value[0] == 0 && value[offsets.size() - 1] == total, message);
    for (py::ssize_t i = 1; i < offsets.size(); ++i) require(value[i] > value[i - 1], message);
}

void rasterize(const Array<float>& points, const Array<std::int64_t>& stroke_offsets,
               const Array<std::int64_t>& sketch_offsets, const Array<double>& line_widths,
               const std::optional<Array<bool>>& erasers, int size, int threads, Array<std::uint8_t>& out) {
    require_points(points);
    require_offsets(stroke_offsets, points.shape(0), "stroke_offsets must rise from 0 to the number of points");
    const py::ssize_t strokes = stroke_offsets.size() - 1;
    require_offsets(sketch_offsets, strokes, "sketch_offsets must rise from 0 to the number of strokes");
    const py::ssize_t sketches = sketch_offsets.size() - 1;
    require(line_widths.ndim() == 1 && line_widths.size() == strokes, "line_widths must be float64 (S,)");
    require(!erasers || (erasers->ndim() == 1 && erasers->size() == strokes), "erasers must be bool (S,)");
    require(size >= 8 && size <= 2048, "size must be 8..2048");
    require(threads >= 1, "threads must be at least 1");
    require(out.ndim() == 3 && out.shape(0) == sketches && out.shape(1) == size && out.shape(2) == size,
            "out must be uint8 (B, size, size)");
    for (py::ssize_t i = 0; i < points.size(); ++i) require(std::isfinite(points.data()[i]), "points must be finite");
    for (py::ssize_t i = 0; i < strokes; ++i) {
        require(std::isfinite(line_widths.data()[i]) && line_widths.data()[i] > 0, "line widths must be positive");
    }

    const sketchynet::SketchBatchView view{points.data(),         stroke_offsets.data(),
                                           sketch_offsets.data(), line_widths.data(),
                                           erasers ? erasers->data() : nullptr, sketches};
    std::uint8_t* pixels = out.mutable_data();  // raises where the array is read-only
    const py::gil_scoped_release release;
    sketchynet::rasterize(view, size, threads, pixels);
}

template <typename T>
py::array_t<T> to_array(std::vector<T>&& values) {
    auto* owned = new std::vector<T>(std::move(values));
    const py::capsule owner(owned, [](void* p) { delete static_cast<std::vector<T>*>(p); });
    return py::array_t<T>(static_cast<py::ssize_t>(owned->size()), owned->data(), owner);
}

py::tuple simplify(const Array<float>& points, const Array<std::int64_t>& stroke_offsets, double tolerance) {
    require_points(points);
    require_offsets(stroke_offsets, points.shape(0), "stroke_offsets must rise from 0 to the number of points");
    require(std::isfinite(tolerance) && tolerance >= 0, "tolerance must be finite and not negative");
    sketchynet::Simplified result;
    {
        const py::gil_scoped_release release;
        result = sketchynet::simplify(points.data(), stroke_offsets.data(), stroke_offsets.size() - 1, tolerance);
    }
    return py::make_tuple(to_array(std::move(result.kept)), to_array(std::move(result.stroke_offsets)));
}

}  // namespace

PYBIND11_MODULE(_core, m) {
    m.doc() = "Stroke rasteriser and simplification in C++; call them through sketchynet.raster.";
    m.def("rasterize", &rasterize, py::arg("points").noconvert(), py::arg("stroke_offsets").noconvert(),
          py::arg("sketch_offsets").noconvert(), py::arg("line_widths").noconvert(),
          py::arg("erasers").noconvert().none(true), py::arg("size"), py::arg("threads"), py::arg("out").noconvert());
    m.def("simplify", &simplify, py::arg("points").noconvert(), py::arg("stroke_offsets").noconvert(),
          py::arg("tolerance"));
}
