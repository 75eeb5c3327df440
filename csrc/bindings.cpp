// The Python face of the C++ code: checks types, shapes and offsets, then works without the GIL. Messages for users
// come from sketchynet/raster.py and sketchynet/sketch.py; what is checked here keeps any call from reading or
// writing outside its arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "raster/dispatch.hpp"
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

// Canvas i shows sketch sketches[i] at sizes[i] in out[offsets[i] .. offsets[i] + sizes[i]^2).
void rasterize(const Array<float>& points, const Array<std::int64_t>& stroke_offsets,
               const Array<std::int64_t>& sketch_offsets, const std::optional<Array<double>>& stroke_widths,
               const std::optional<Array<bool>>& erasers, double line_width, bool widths_in_pixels,
               const Array<std::int64_t>& sketches, const Array<std::int64_t>& sizes,
               const Array<std::int64_t>& offsets, int threads, Array<std::uint8_t>& out) {
    require_points(points);
    require_offsets(stroke_offsets, points.shape(0), "stroke_offsets must rise from 0 to the number of points");
    const py::ssize_t strokes = stroke_offsets.size() - 1;
    require_offsets(sketch_offsets, strokes, "sketch_offsets must rise from 0 to the number of strokes");
    require(points.shape(0) <= std::numeric_limits<std::int32_t>::max(), "points must be fewer than 2^31");
    require(!stroke_widths || (stroke_widths->ndim() == 1 && stroke_widths->size() == strokes),
            "stroke_widths must be float64 (S,)");
    require(!erasers || (erasers->ndim() == 1 && erasers->size() == strokes), "erasers must be bool (S,)");
    require(std::isfinite(line_width) && line_width > 0, "line_width must be positive");
    require(threads >= 1, "threads must be at least 1");
    for (py::ssize_t i = 0; i < points.size(); ++i) require(std::isfinite(points.data()[i]), "points must be finite");
    for (py::ssize_t i = 0; stroke_widths && i < strokes; ++i) {
        const double width = stroke_widths->data()[i];
        require(std::isfinite(width) && width > 0, "stroke_widths must be positive");
    }

    require(out.ndim() == 1, "out must be uint8 (M,)");
    const py::ssize_t count = sketches.size();
    require(sketches.ndim() == 1 && sizes.ndim() == 1 && offsets.ndim() == 1 && sizes.size() == count &&
                offsets.size() == count,
            "sketches, sizes and offsets must be int64 (n,)");
    std::uint8_t* pixels = out.mutable_data();  // raises where the array is read-only
    std::vector<sketchynet::Canvas> canvases(static_cast<std::size_t>(count));
    std::int64_t free = 0;
    for (py::ssize_t i = 0; i < count; ++i) {
        const std::int64_t sketch = sketches.data()[i], size = sizes.data()[i], offset = offsets.data()[i];
        require(sketch >= 0 && sketch < sketch_offsets.size() - 1, "sketches must be 0..B - 1");
        require(size >= 8 && size <= 2048, "sizes must be 8..2048");
        require(offset >= free && offset <= out.size() - size * size, "canvases must rise in out without overlap");
        free = offset + size * size;
        canvases[static_cast<std::size_t>(i)] = {sketch, static_cast<std::int32_t>(size), pixels + offset};
    }

    const sketchynet::SketchBatchView view{points.data(),
                                           stroke_offsets.data(),
                                           sketch_offsets.data(),
                                           stroke_widths ? stroke_widths->data() : nullptr,
                                           erasers ? erasers->data() : nullptr,
                                           line_width,
                                           widths_in_pixels};
    const py::gil_scoped_release release;
    sketchynet::rasterize(view, canvases.data(), count, threads);
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
          py::arg("sketch_offsets").noconvert(), py::arg("stroke_widths").noconvert().none(true),
          py::arg("erasers").noconvert().none(true), py::arg("line_width"), py::arg("widths_in_pixels"),
          py::arg("sketches").noconvert(), py::arg("sizes").noconvert(), py::arg("offsets").noconvert(),
          py::arg("threads"), py::arg("out").noconvert());
    m.def("instruction_sets", &sketchynet::instruction_sets);
    m.def("instruction_set", &sketchynet::instruction_set);
    m.def("use_instruction_set", &sketchynet::use_instruction_set, py::arg("name"));
    m.def("simplify", &simplify, py::arg("points").noconvert(), py::arg("stroke_offsets").noconvert(),
          py::arg("tolerance"));
}
