// What the tests ask of the phones' Swift, as a command. Prints one line of JSON.

import Foundation

@main
struct Main {
    static func main() async throws {
        let words = CommandLine.arguments
        switch words[1] {
        case "run": try run(words[2], words[3], words[4], words[5], words.dropFirst(6).map { Int($0)! })
        case "open": open(words[2], Array(words.dropFirst(3)))
        case "misuse": misuse(words[2])
        case "update": try await update(words[2], words[3], Double(words[4])! / 1000, Double(words[5])! / 1000)
        case "together": try await together(words[2], words[3], Double(words[4])! / 1000)
        default: exit(2)
        }
    }

    /// The first output of `graph`, in `out`, for the floats of the file `given` as its input called `name`.
    static func run(_ graph: String, _ given: String, _ name: String, _ out: String, _ shape: [Int]) throws {
        let data = try Data(contentsOf: URL(fileURLWithPath: given))
        let found = try Model(path: graph, wanted: ["CPU"]).run([name: Tensor(data: data, shape: shape)]).values.first!
        try found.data.write(to: URL(fileURLWithPath: out))
        say(["shape": found.shape])
    }

    static func open(_ graph: String, _ wanted: [String]) {
        do {
            let model = try Model(path: graph, wanted: wanted)
            say(["provider": model.provider, "missing": model.missing.keys.sorted()])
        } catch {
            say(["refused": "\(error)"])
        }
    }

    static func misuse(_ graph: String) {
        let x = Tensor([0, 0, 0, 0], shape: [1, 4])
        let all: [[String: Tensor]] = [[:], ["x": x, "z": x], ["x": Tensor([0, 0, 0], shape: [1, 3])]]
        say([
            "said": all.map { inputs in
                do {
                    return try Model(path: graph, wanted: ["CPU"]).run(inputs).keys.joined()
                } catch {
                    return "\(error)"
                }
            }
        ])
    }

    static func update(_ pointer: String, _ folder: String, _ patience: Double, _ deadline: Double) async throws {
        let updater = Updater(
            pointer: URL(string: pointer)!, folder: URL(fileURLWithPath: folder), patience: patience, deadline: deadline)
        var answer: [String: Any]
        switch await updater.update() {
        case .installed: answer = ["how": "installed", "why": ""]
        case .unchanged: answer = ["how": "unchanged", "why": ""]
        case .kept(_, let why): answer = ["how": "kept", "why": why]
        }
        answer["now"] = NSNull()
        if let release = await updater.installed() { answer["now"] = try works(release) }
        say(answer)
    }

    /// An update while another one is downloading; what it has to say.
    static func together(_ pointer: String, _ folder: String, _ patience: Double) async throws {
        let updater = Updater(pointer: URL(string: pointer)!, folder: URL(fileURLWithPath: folder), patience: patience)
        Task { await updater.update() }
        while (try? FileManager.default.contentsOfDirectory(atPath: folder + "/coming"))?.isEmpty ?? true {
            try await Task.sleep(nanoseconds: 10_000_000)
        }
        if case .kept(_, let why) = await updater.update() { say(["why": why]) }
    }

    /// The release in use, and what it computes.
    static func works(_ release: Release) throws -> [String: Any] {
        let y = try Model(path: release.graph.path, wanted: ["CPU"]).run(["x": Tensor([1, 2, 3, 4], shape: [1, 4])])
        return ["serial": release.serial, "version": release.version, "y": y["y"]!.floats]
    }

    static func say(_ answer: [String: Any]) {
        print(String(data: try! JSONSerialization.data(withJSONObject: answer), encoding: .utf8)!)
    }
}
