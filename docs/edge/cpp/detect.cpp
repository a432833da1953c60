// Runs an exported slimdet detector on one photograph: `detect width-0.5.onnx photograph.ppm`.
// Resizing, normalization and non-maximum suppression are inside the file; only bytes go in and detections come out.
#include <onnxruntime_cxx_api.h>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

struct Image {
    int64_t height = 0, width = 0;
    std::vector<uint8_t> rgb;  // height x width x 3
};

// A binary PPM (P6, 8 bits a channel), the one colour format that needs no library.
Image read_ppm(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("cannot open " + path.string());
    std::string magic(2, ' ');
    file.read(magic.data(), 2);
    auto number = [&file] {
        int value = 0;
        while ((file >> std::ws).peek() == '#') file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
        file >> value;
        return value;
    };
    Image image;
    image.width = number();
    image.height = number();
    const int largest = number();
    if (!file || magic != "P6" || largest != 255 || image.width < 1 || image.height < 1)
        throw std::runtime_error(path.string() + " is not a binary PPM (P6) of 8 bits a channel");
    file.get();  // the one white space between header and pixels
    image.rgb.resize(static_cast<size_t>(image.height) * image.width * 3);
    if (!file.read(reinterpret_cast<char*>(image.rgb.data()), static_cast<std::streamsize>(image.rgb.size())))
        throw std::runtime_error(path.string() + " ends before its last pixel");
    return image;
}

// The strings of a JSON list, as UTF-8. The metadata is ASCII: other characters stand there as \uXXXX, in UTF-16.
std::vector<std::string> read_names(const std::string& json) {
    std::vector<std::string> names;
    bool inside = false;
    uint32_t high = 0;  // first half of a surrogate pair
    for (size_t i = 0; i < json.size(); ++i) {
        if (json[i] == '"') {
            if (!inside) names.emplace_back();
            inside = !inside;
        } else if (inside && json[i] == '\\' && json.at(++i) == 'u') {
            uint32_t code = std::stoul(json.substr(i + 1, 4), nullptr, 16);
            i += 4;
            if ((code & 0xFC00) == 0xD800) { high = code; continue; }
            if ((code & 0xFC00) == 0xDC00) code = 0x10000 + ((high & 0x3FF) << 10) + (code & 0x3FF);
            const int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;  // bytes after the first
            const uint32_t lead[] = {0x00, 0xC0, 0xE0, 0xF0};
            names.back() += static_cast<char>(lead[more] | code >> 6 * more);
            for (int k = more - 1; k >= 0; --k) names.back() += static_cast<char>(0x80 | (code >> 6 * k & 0x3F));
        } else if (inside) {
            names.back() += json[i];  // an escaped quote or backslash too
        }
    }
    return names;
}

int main(int argc, char** argv) try {
    if (argc != 3) throw std::runtime_error("usage: detect MODEL.onnx IMAGE.ppm");
    Image image = read_ppm(argv[2]);

    Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "slimdet");
    Ort::Session session(env, std::filesystem::path(argv[1]).c_str(), Ort::SessionOptions());
    Ort::AllocatorWithDefaultOptions allocator;
    const auto classes = session.GetModelMetadata().LookupCustomMetadataMapAllocated("classes", allocator);
    if (!classes) throw std::runtime_error(std::string(argv[1]) + " names no classes: not a file of slimdet export");
    const std::vector<std::string> names = read_names(classes.get());

    const int64_t shape[] = {1, image.height, image.width, 3};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    auto images = Ort::Value::CreateTensor<uint8_t>(memory, image.rgb.data(), image.rgb.size(), shape, 4);
    const char* inputs[] = {"images"};
    const char* outputs[] = {"boxes", "labels", "scores"};
    const auto found = session.Run(Ort::RunOptions(), inputs, &images, 1, outputs, 3);

    const float* box = found[0].GetTensorData<float>();  // x1 y1 x2 y2 in pixels of the photograph
    const int64_t* labels = found[1].GetTensorData<int64_t>();  // from 1: label 1 is the first class
    const float* scores = found[2].GetTensorData<float>();
    const size_t count = found[2].GetTensorTypeAndShapeInfo().GetElementCount();
    for (size_t i = 0; i < count; ++i, box += 4)
        if (scores[i] >= 0.25F)
            std::printf("%s %.4f  %.2f %.2f %.2f %.2f\n", names.at(labels[i] - 1).c_str(), scores[i],
                        box[0], box[1], box[2], box[3]);
} catch (const std::exception& error) {
    std::fprintf(stderr, "detect: %s\n", error.what());
    return 1;
}
