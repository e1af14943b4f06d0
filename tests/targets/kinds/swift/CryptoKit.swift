// A stand-in for Apple's module of this name: SHA-256 by OpenSSL.

import COpenSSL
import Foundation

public enum SHA256 {
    public static func hash(data: Data) -> [UInt8] {
        var digest = [UInt8](repeating: 0, count: 32)
        data.withUnsafeBytes { _ = COpenSSL.SHA256($0.bindMemory(to: UInt8.self).baseAddress, data.count, &digest) }
        return digest
    }
}
