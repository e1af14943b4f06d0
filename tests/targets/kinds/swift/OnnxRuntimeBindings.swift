// A stand-in for the module of this name that ONNX Runtime has for Apple's systems, on its C API. It has what
// Model.swift uses, declared as in https://onnxruntime.ai/docs/api/objectivec/

import COnnxRuntime
import Foundation

let api = OrtGetApiBase().pointee.GetApi(UInt32(ORT_API_VERSION))!.pointee

public struct ORTError: Error, CustomStringConvertible {
    public let description: String
}

func check(_ status: OrtStatusPtr?) throws {
    guard let status else { return }
    defer { api.ReleaseStatus(status) }
    throw ORTError(description: String(cString: api.GetErrorMessage(status)!))
}

public enum ORTLoggingLevel { case error }

public enum ORTTensorElementDataType {
    case float, int8, uInt8, int32, int64

    var raw: ONNXTensorElementDataType {
        switch self {
        case .float: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
        case .int8: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8
        case .uInt8: return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8
        case .int32: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32
        case .int64: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64
        }
    }
}

public final class ORTEnv {
    let raw: OpaquePointer

    public init(loggingLevel: ORTLoggingLevel) throws {
        var made: OpaquePointer?
        try check(api.CreateEnv(ORT_LOGGING_LEVEL_ERROR, "shipway", &made))
        raw = made!
    }

    deinit { api.ReleaseEnv(raw) }
}

public final class ORTSessionOptions {
    let raw: OpaquePointer

    public init() throws {
        var made: OpaquePointer?
        try check(api.CreateSessionOptions(&made))
        raw = made!
    }

    deinit { api.ReleaseSessionOptions(raw) }

    public func setIntraOpNumThreads(_ threads: Int32) throws {
        try check(api.SetIntraOpNumThreads(raw, threads))
    }

    public func appendExecutionProvider(_ name: String, providerOptions: [String: String]) throws {
        try check(api.SessionOptionsAppendExecutionProvider(raw, name, nil, nil, 0))
    }

    public func addConfigEntry(withKey key: String, value: String) throws {
        try check(api.AddSessionConfigEntry(raw, key, value))
    }
}

public final class ORTRunOptions {}

public final class ORTTensorTypeAndShapeInfo {
    public let shape: [NSNumber]

    init(_ shape: [NSNumber]) { self.shape = shape }
}

public final class ORTValue {
    let raw: OpaquePointer
    private let held: NSMutableData?

    public init(tensorData: NSMutableData, elementType: ORTTensorElementDataType, shape: [NSNumber]) throws {
        var memory: OpaquePointer?
        try check(api.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory))
        defer { api.ReleaseMemoryInfo(memory) }
        var made: OpaquePointer?
        let sizes = shape.map { $0.int64Value }
        try check(
            api.CreateTensorWithDataAsOrtValue(
                memory, tensorData.mutableBytes, tensorData.length, sizes, sizes.count, elementType.raw, &made))
        raw = made!
        held = tensorData  // the runtime reads it in place
    }

    init(_ raw: OpaquePointer) {
        self.raw = raw
        held = nil
    }

    deinit { api.ReleaseValue(raw) }

    public func tensorTypeAndShapeInfo() throws -> ORTTensorTypeAndShapeInfo {
        try described { info, _ in ORTTensorTypeAndShapeInfo(try sizes(info).map { NSNumber(value: $0) }) }
    }

    public func tensorData() throws -> NSMutableData {
        try described { info, width in
            var bytes: UnsafeMutableRawPointer?
            try check(api.GetTensorMutableData(raw, &bytes))
            return NSMutableData(bytes: bytes!, length: Int(try sizes(info).reduce(1, *)) * width)
        }
    }

    private func described<Found>(_ look: (OpaquePointer, Int) throws -> Found) throws -> Found {
        var info: OpaquePointer?
        try check(api.GetTensorTypeAndShape(raw, &info))
        defer { api.ReleaseTensorTypeAndShapeInfo(info) }
        var type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED
        try check(api.GetTensorElementType(info, &type))
        let width = type == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 ? 8 : type == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8 ? 1 : 4
        return try look(info!, width)
    }

    private func sizes(_ info: OpaquePointer) throws -> [Int64] {
        var rank = 0
        try check(api.GetDimensionsCount(info, &rank))
        var sizes = [Int64](repeating: 0, count: rank)
        try check(api.GetDimensions(info, &sizes, rank))
        return sizes
    }
}

public final class ORTSession {
    private let raw: OpaquePointer
    private let env: ORTEnv

    public init(env: ORTEnv, modelPath: String, sessionOptions: ORTSessionOptions?) throws {
        var made: OpaquePointer?
        try check(api.CreateSession(env.raw, modelPath, sessionOptions?.raw, &made))
        raw = made!
        self.env = env
    }

    deinit { api.ReleaseSession(raw) }

    public func run(
        withInputs inputs: [String: ORTValue], outputNames: Set<String>, runOptions: ORTRunOptions?
    ) throws -> [String: ORTValue] {
        let given = Array(inputs), wanted = Array(outputNames)
        let names = (given.map(\.key) + wanted).map { UnsafePointer(strdup($0)) }
        defer { names.forEach { free(UnsafeMutablePointer(mutating: $0)) } }
        let values = given.map { Optional($0.value.raw) }
        var found = [OpaquePointer?](repeating: nil, count: wanted.count)
        try check(
            api.Run(
                raw, nil, Array(names.prefix(given.count)), values, given.count,
                Array(names.suffix(wanted.count)), wanted.count, &found))
        return Dictionary(uniqueKeysWithValues: zip(wanted, found.map { ORTValue($0!) }))
    }
}
