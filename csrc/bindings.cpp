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

#include "norm.hpp"
#include "rank.hpp"
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

void require_rows(const Array<float>& rows, py::ssize_t count, py::ssize_t dim, const char* message) {
    require(rows.ndim() == 2 && rows.shape(0) == count && rows.shape(1) == dim, message);
}

template <typename T>
void require_length(const Array<T>& values, py::ssize_t count, const char* message) {
    require(values.ndim() == 1 && values.size() == count, message);
}

void row_squares(const Array<float>& rows, int threads, Array<double>& out) {
    require(rows.ndim() == 2 && threads >= 1, "rows must be float32 (n, D), threads at least 1");
    require_length(out, rows.shape(0), "out must be float64 (n,)");
    double* squares = out.mutable_data();
    const py::gil_scoped_release release;
    sketchynet::row_squares(rows.data(), rows.shape(0), rows.shape(1), threads, squares);
}

void row_distances(const Array<float>& x, const Array<float>& y, Array<double>& out) {
    require(x.ndim() == 2, "x must be float32 (n, D)");
    require_rows(y, x.shape(0), x.shape(1), "y must have the shape of x");
    require_length(out, x.shape(0), "out must be float64 (n,)");
    double* squared = out.mutable_data();
    const py::gil_scoped_release release;
    sketchynet::row_distances(x.data(), y.data(), x.shape(0), x.shape(1), squared);
}

void count_nearer(const Array<float>& products, const Array<float>& queries, const Array<float>& gallery,
                  const Array<float>& above, const Array<float>& below, const Array<float>& low,
                  const Array<float>& high, const Array<double>& true_squared, int threads,
                  Array<std::int64_t>& counts) {
    require(queries.ndim() == 2 && gallery.ndim() == 2 && threads >= 1, "queries and gallery must be matrices");
    const py::ssize_t b = queries.shape(0), n = gallery.shape(0), dim = queries.shape(1);
    require_rows(gallery, n, dim, "gallery must be float32 (n, D)");
    require_rows(products, b, n, "products must be float32 (B, n)");
    for (const Array<float>* bound : {&above, &below}) require_length(*bound, n, "bounds of rows must be float32 (n,)");
    for (const Array<float>* cut : {&low, &high}) require_length(*cut, b, "cuts must be float32 (B,)");
    require_length(true_squared, b, "true_squared must be float64 (B,)");
    require_length(counts, b, "counts must be int64 (B,)");
    const sketchynet::RankChunk chunk{products.data(), queries.data(), gallery.data(), above.data(), below.data(),
                                      low.data(),      high.data(),    true_squared.data(), b, n, dim};
    std::int64_t* found = counts.mutable_data();
    const py::gil_scoped_release release;
    sketchynet::count_nearer(chunk, threads, found);
}

sketchynet::NormShape norm_shape(const Array<float>& x, int threads) {
    require(x.ndim() == 2 && x.shape(0) >= 1 && x.shape(1) >= 1 && threads >= 1,
            "x must be float32 (rows, channels) with at least one of each, threads at least 1");
    return {x.shape(0), x.shape(1)};
}

sketchynet::NormAffine norm_affine(const Array<float>& mean, const Array<float>& scale, const Array<float>& bias,
                                   float low, float high, py::ssize_t channels) {
    for (const Array<float>* values : {&mean, &scale, &bias}) {
        require_length(*values, channels, "mean, scale and bias must be float32 (channels,)");
    }
    require(low < high, "low must be below high");
    return {mean.data(), scale.data(), bias.data(), low, high};
}

void norm_statistics(const Array<float>& x, int threads, Array<double>& mean, Array<double>& variance) {
    const sketchynet::NormShape shape = norm_shape(x, threads);
    for (const Array<double>* out : {&mean, &variance}) {
        require_length(*out, shape.channels, "mean and variance must be float64 (channels,)");
    }
    double *means = mean.mutable_data(), *variances = variance.mutable_data();
    const py::gil_scoped_release release;
    sketchynet::norm_statistics(x.data(), shape, threads, means, variances);
}

void norm_forward(const Array<float>& x, const Array<float>& mean, const Array<float>& scale,
                  const Array<float>& bias, float low, float high, int threads, Array<float>& y) {
    const sketchynet::NormShape shape = norm_shape(x, threads);
    const sketchynet::NormAffine affine = norm_affine(mean, scale, bias, low, high, shape.channels);
    require_rows(y, shape.rows, shape.channels, "y must have the shape of x");
    float* out = y.mutable_data();
    const py::gil_scoped_release release;
    sketchynet::norm_forward(x.data(), shape, affine, threads, out);
}

void norm_gradient_sums(const Array<float>& x, const Array<float>& dy, const Array<float>& mean,
                        const Array<float>& scale, const Array<float>& bias, float low, float high, int threads,
                        Array<double>& plain, Array<double>& scaled) {
    const sketchynet::NormShape shape = norm_shape(x, threads);
    const sketchynet::NormAffine affine = norm_affine(mean, scale, bias, low, high, shape.channels);
    require_rows(dy, shape.rows, shape.channels, "dy must have the shape of x");
    for (const Array<double>* out : {&plain, &scaled}) {
        require_length(*out, shape.channels, "plain and scaled must be float64 (channels,)");
    }
    double *plains = plain.mutable_data(), *scaleds = scaled.mutable_data();
    const py::gil_scoped_release release;
    sketchynet::norm_gradient_sums(x.data(), dy.data(), shape, affine, threads, plains, scaleds);
}

void norm_backward(const Array<float>& x, const Array<float>& dy, const Array<float>& mean,
                   const Array<float>& scale, const Array<float>& bias, float low, float high,
                   const Array<float>& slope, const Array<float>& offset, int threads, Array<float>& dx) {
    const sketchynet::NormShape shape = norm_shape(x, threads);
    const sketchynet::NormAffine affine = norm_affine(mean, scale, bias, low, high, shape.channels);
    require_rows(dy, shape.rows, shape.channels, "dy must have the shape of x");
    require_rows(dx, shape.rows, shape.channels, "dx must have the shape of x");
    for (const Array<float>* values : {&slope, &offset}) {
        require_length(*values, shape.channels, "slope and offset must be float32 (channels,)");
    }
    float* out = dx.mutable_data();
    const py::gil_scoped_release release;
    sketchynet::norm_backward(x.data(), dy.data(), shape, affine, slope.data(), offset.data(), threads, out);
}

}  // namespace

PYBIND11_MODULE(_core, m) {
    m.doc() = "Stroke rasteriser, simplification, rank counts and batch norms in C++; their Python modules call them.";
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
    m.def("row_squares", &row_squares, py::arg("rows").noconvert(), py::arg("threads"), py::arg("out").noconvert());
    m.def("row_distances", &row_distances, py::arg("x").noconvert(), py::arg("y").noconvert(),
          py::arg("out").noconvert());
    m.def("count_nearer", &count_nearer, py::arg("products").noconvert(), py::arg("queries").noconvert(),
          py::arg("gallery").noconvert(), py::arg("above").noconvert(), py::arg("below").noconvert(),
          py::arg("low").noconvert(), py::arg("high").noconvert(), py::arg("true_squared").noconvert(),
          py::arg("threads"), py::arg("counts").noconvert());
    m.def("norm_statistics", &norm_statistics, py::arg("x").noconvert(), py::arg("threads"),
          py::arg("mean").noconvert(), py::arg("variance").noconvert());
    m.def("norm_forward", &norm_forward, py::arg("x").noconvert(), py::arg("mean").noconvert(),
          py::arg("scale").noconvert(), py::arg("bias").noconvert(), py::arg("low"), py::arg("high"),
          py::arg("threads"), py::arg("y").noconvert());
    m.def("norm_gradient_sums", &norm_gradient_sums, py::arg("x").noconvert(), py::arg("dy").noconvert(),
          py::arg("mean").noconvert(), py::arg("scale").noconvert(), py::arg("bias").noconvert(), py::arg("low"),
          py::arg("high"), py::arg("threads"), py::arg("plain").noconvert(), py::arg("scaled").noconvert());
    m.def("norm_backward", &norm_backward, py::arg("x").noconvert(), py::arg("dy").noconvert(),
          py::arg("mean").noconvert(), py::arg("scale").noconvert(), py::arg("bias").noconvert(), py::arg("low"),
          py::arg("high"), py::arg("slope").noconvert(), py::arg("offset").noconvert(), py::arg("threads"),
          py::arg("dx").noconvert());
}
